"""Read per-layer transcoders in circuit-tracer's layout.

A file ``layer_N.safetensors`` holds ``W_enc`` [width, d], ``W_dec`` [width, d], ``b_enc``,
``b_dec``, for JumpReLU ``activation_function.threshold`` [width], and for a skip connection
``W_skip`` [d_out, d_in]. ``config.yaml`` beside it names the hooks that all layers read and write.
"""

import re
from pathlib import Path

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble, require_both_sites
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_safetensors,
    refusal,
    sizes_of,
)
from modelassay.decompositions.sparsifiers import JumpReLUActivation, ReLUActivation
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

CONFIG_FILE = "config.yaml"
_KIND = "circuit-tracer"
_FILE = re.compile(r"layer_(\d+)\.safetensors")
_THRESHOLD = "activation_function.threshold"
_ROLES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "mlp.hook_in": "mlp_in",
    "hook_mlp_out": "mlp_out",
    "hook_resid_post": "resid_post",
}
HOOKS: dict[str, str] = {role: hook for hook, role in _ROLES.items()}
"""What ``config.yaml`` calls a site's role."""


def read_circuit_tracer(
    path: str | Path, *, reads: Site | None = None, writes: Site | None = None
) -> Dictionary:
    """Read a ``layer_N.safetensors``.

    Args:
        path: the file.
        reads: where the activations stand; None reads the hook in ``config.yaml``, if there is
            one beside it.
        writes: likewise for what the reconstructions stand for.

    Raises:
        CorruptFileError: if the file is missing, truncated or lacks a tensor.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if it keeps the k largest, which in that library may be negative, is
            part of a cross-layer transcoder or its hooks are not known.
    """
    path = Path(path)
    if path.name.startswith(("W_enc_", "W_dec_")) or (path / "W_enc_0.safetensors").is_file():
        raise ValueRangeError(
            f"{str(path)!r}: the file must be a layer_N.safetensors of per-layer transcoders; got "
            "a part of a cross-layer transcoder, which writes to many layers. Read its folder "
            "with read_cross_layer."
        )
    tensors = read_safetensors(path, _KIND)
    activation = config_value(path.parent / CONFIG_FILE, "activation")
    if "k" in tensors or activation not in (None, "relu", "jump_relu", "jumprelu"):
        raise refusal(
            path, "activation", "topk" if "k" in tensors else activation,
            "relu or jump_relu: what topk keeps may be negative in that library",
        )  # fmt: skip
    d, width = sizes_of(tensors, path, inputs="b_dec", latents="b_enc")
    wanted = {
        "W_enc": [width, d],
        "b_enc": [width],
        "W_dec": [width, d],
        "b_dec": [d],
        _THRESHOLD: [width],
        "W_skip": [d, d],
    }
    may_lack = (_THRESHOLD, "W_skip") if activation in (None, "relu") else ("W_skip",)
    weights = check_tensors(tensors, wanted, path, optional=may_lack)
    jumps = _THRESHOLD in weights and activation != "relu"
    reads = reads or _site(path, "feature_input_hook")
    writes = writes or _site(path, "feature_output_hook")
    require_both_sites(reads, writes, path)
    dictionary = assemble(
        weights["W_enc"].t(),
        weights["b_enc"],
        weights["W_dec"],
        weights["b_dec"],
        JumpReLUActivation(weights[_THRESHOLD]) if jumps else ReLUActivation(),
        subtracts=False,
        reads=reads,
        writes=writes,
    )
    if "W_skip" not in weights:
        return dictionary
    return SkipTranscoder.around(dictionary, weights["W_skip"].t())


def config_value(config: Path, key: str) -> str | None:
    """What a line of ``config.yaml`` says; None without the file or the line."""
    if not config.is_file():
        return None
    # The names are plain values of a flat file: no reader of all YAML is needed for them.
    line = re.search(rf"^{key}:\s*['\"]?([\w.]+)", config.read_text("utf-8"), re.MULTILINE)
    return line[1] if line else None


def site_in_config(config: Path, key: str, layer: int) -> Site | None:
    """The hook that ``config.yaml`` names, in a layer; None without the file.

    Raises:
        ValueRangeError: if the hook is missing or not known.
    """
    if not config.is_file():
        return None
    hook = config_value(config, key)
    if hook not in _ROLES:
        raise refusal(config, key, hook, f"one of {', '.join(_ROLES)}")
    return Site(_ROLES[hook], layer)


def _site(path: Path, key: str) -> Site | None:
    """What ``config.yaml`` says for the file's layer; None without config or layer."""
    layer = _FILE.fullmatch(path.name)
    return None if layer is None else site_in_config(path.parent / CONFIG_FILE, key, int(layer[1]))
