"""Read dictionaries of Gemma Scope 1 and 2: JumpReLU, with nothing subtracted from the input.

The first holds ``params.npz`` alone: ``W_enc`` [d, width], ``W_dec`` [width, d], ``b_enc``,
``b_dec`` and ``threshold`` [width]; only the path says where it belongs. The second holds the same
in ``params.safetensors``, with small letters, beside a ``config.json``; skip transcoders add
``affine_skip_connection`` [d, d], the input first.
"""

import re
from pathlib import Path
from typing import Any

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble, require_both_sites
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_config_file,
    read_npz,
    read_safetensors,
    refusal,
    sizes_of,
)
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

FIRST_FILE = "params.npz"
SECOND_FILE = "params.safetensors"
CONFIG_FILE = "config.json"
FIRST_LAYER = "params_layer_0.safetensors"
SKIP = "affine_skip_connection"
_KIND = "Gemma Scope"

_REPOSITORY = re.compile(r"gemma-scope-[^/\\]*-(res|mlp|att|transcoders)(?:$|[-/\\])")
_LAYER = re.compile(r"layer_(\d+)")
_ROLES = {"res": "resid_post", "mlp": "mlp_out"}  # att reads all heads at once: no site of ours

# Module paths by which the second says what it reads and writes.
_HOOKS = {
    "output": "resid_post",
    "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm.output": "mlp_out",
}
_HOOK = re.compile(r"(?:.*\.)?layers\.(\d+)\.(.+)")


def read_gemma_scope(
    folder: str | Path, *, reads: Site | None = None, writes: Site | None = None
) -> Dictionary:
    """Read a folder of either release, told apart by the file that is in it.

    Args:
        folder: holds ``params.npz`` or ``params.safetensors`` with ``config.json``.
        reads: where the activations stand; None reads the path of the first (the repository's
            name with ``-res`` or ``-mlp``, and ``layer_3``) or the config of the second.
        writes: likewise for what the reconstructions stand for.

    Raises:
        CorruptFileError: if a file or tensor is missing, truncated or a pickle.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if it is of a kind whose meaning this reader does not know: transcoders
            of the first, cross-layer transcoders of the second, embeddings.
    """
    folder = Path(folder)
    if (folder / FIRST_LAYER).is_file():
        raise ValueRangeError(
            f"{str(folder)!r} must hold one dictionary; got the layers of a cross-layer "
            "transcoder or a crosscoder. Read the former with read_cross_layer."
        )
    if (folder / SECOND_FILE).is_file():
        return _read_second(folder, reads, writes)
    if (folder / FIRST_FILE).is_file():
        return _read_first(folder, reads, writes)
    raise CorruptFileError(
        f"A {_KIND} folder must hold {FIRST_FILE} or {SECOND_FILE}; got neither in "
        f"{str(folder)!r}. Check the path: every dictionary has a folder of its own."
    )


def _read_first(folder: Path, reads: Site | None, writes: Site | None) -> Dictionary:
    path = folder / FIRST_FILE
    if reads is None:
        reads = _site_of_path(folder)
    arrays = read_npz(path, _KIND)
    d, width = sizes_of(arrays, path, inputs="b_dec", latents="b_enc")
    wanted = {
        "W_enc": [d, width],
        "b_enc": [width],
        "W_dec": [width, d],
        "b_dec": [d],
        "threshold": [width],
    }
    weights = check_tensors(arrays, wanted, path)
    return assemble(
        weights["W_enc"],
        weights["b_enc"],
        weights["W_dec"],
        weights["b_dec"],
        JumpReLUActivation(weights["threshold"]),
        subtracts=False,
        reads=reads,
        writes=writes,
    )


def _site_of_path(folder: Path) -> Site | None:
    """The site that the repository's name and ``layer_N`` give; None if the path lacks either."""
    text = folder.absolute().as_posix()
    if "embedding" in folder.absolute().parts:
        raise refusal(folder, "the path", "embedding", "one of a layer: embeddings are scaled")
    repositories = _REPOSITORY.findall(text)
    layers = _LAYER.findall(text)
    kind = repositories[-1] if repositories else None
    if kind == "transcoders":
        raise ValueRangeError(
            f"{str(folder)!r}: what a transcoder of Gemma Scope 1 reads must be said; got only "
            "its path, and the sources differ on whether the norm's gain is in it. Pass reads= "
            "and writes=."
        )
    if kind not in _ROLES or not layers:
        return None
    return Site(_ROLES[kind], int(layers[-1]))


def _read_second(folder: Path, reads: Site | None, writes: Site | None) -> Dictionary:
    path, config_path = folder / SECOND_FILE, folder / CONFIG_FILE
    config = read_second_config(config_path)
    skips = bool(config.get("affine_connection"))
    tensors = read_safetensors(path, _KIND)
    if "w_dec" in tensors and tensors["w_dec"].ndim == 3:
        raise refusal(
            path, "w_dec", list(tensors["w_dec"].shape),
            "a matrix: cross-layer transcoders write to many layers",
        )  # fmt: skip
    # What is read is as wide as what is written, also in transcoders: a transposed encoder must not
    # pass for one of another width.
    d, width = sizes_of(tensors, path, inputs="b_dec", latents="b_enc")
    wanted = {
        "w_enc": [d, width],
        "b_enc": [width],
        "w_dec": [width, d],
        "b_dec": [d],
        "threshold": [width],
    }
    if reads is None:
        reads = site_of_module(config.get("hf_hook_point_in"))
        writes = writes or site_of_module(config.get("hf_hook_point_out"))
        if not skips:
            writes = writes or reads
    if skips:
        wanted[SKIP] = [d, d]
        require_both_sites(reads, writes, path)
    weights = check_tensors(tensors, wanted, path)
    dictionary = assemble(
        weights["w_enc"],
        weights["b_enc"],
        weights["w_dec"],
        weights["b_dec"],
        JumpReLUActivation(weights["threshold"]),
        subtracts=False,
        reads=reads,
        writes=writes,
    )
    return SkipTranscoder.around(dictionary, weights[SKIP]) if skips else dictionary


def read_second_config(path: Path) -> dict[str, Any]:
    """The config of the second release.

    Raises:
        CorruptFileError: if it is missing or no JSON.
        ValueRangeError: if it is of another architecture.
    """
    config = read_config_file(path, _KIND)
    if config.get("architecture") != "jump_relu":
        raise refusal(path, "architecture", config.get("architecture"), "jump_relu")
    return config


def site_of_module(path: object) -> Site | None:
    """The site of a module path such as ``model.layers.3.output``; None for all others."""
    found = _HOOK.fullmatch(str(path))
    if found is None or found[2] not in _HOOKS:
        return None
    return Site(_HOOKS[found[2]], int(found[1]))
