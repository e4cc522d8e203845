"""Read dictionaries of Qwen Scope: TopK, with nothing subtracted from the input.

A file ``layerN.sae.pt`` is a state dict with ``W_enc`` [width, d], ``W_dec`` [d, width], ``b_enc``
and ``b_dec``. k stands only in the repository's name, as in ``SAE-Res-Qwen3-1.7B-Base-W32K-L0_50``.
"""

import re
from pathlib import Path

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_state_dict,
    sizes_of,
)
from modelassay.decompositions.sparsifiers import TopKActivation
from modelassay.subjects.site import Site

_KIND = "Qwen Scope"
_FILE = re.compile(r"layer(\d+)\.sae\.pt")
# With the prefix of the hub's cache, models--ORG--.
_REPOSITORY = re.compile(r"(?:models--.+--)?SAE-Res-.+-W\d+K-L0_(\d+)")


def read_qwen_scope(
    path: str | Path, *, site: Site | None = None, k: int | None = None
) -> Dictionary:
    """Read a ``layerN.sae.pt``.

    Args:
        path: the file.
        site: where the dictionary belongs; None means ``resid_post`` of the layer in its name.
        k: active latents per token; None reads the name of a folder above it.

    Raises:
        CorruptFileError: if the file is missing, truncated, a foreign pickle or lacks a tensor.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if k is neither given nor in the path.
    """
    path = Path(path)
    state = read_state_dict(path, _KIND)
    d, width = sizes_of(state, path, inputs="b_dec", latents="b_enc")
    wanted = {"W_enc": [width, d], "b_enc": [width], "W_dec": [d, width], "b_dec": [d]}
    weights = check_tensors(state, wanted, path)
    if site is None and (named := _FILE.fullmatch(path.name)):
        site = Site("resid_post", int(named[1]))
    return assemble(
        weights["W_enc"].t(),
        weights["b_enc"],
        weights["W_dec"].t(),
        weights["b_dec"],
        TopKActivation(_k_of_path(path) if k is None else k),
        subtracts=False,
        reads=site,
    )


def _k_of_path(path: Path) -> int:
    for part in reversed(path.absolute().parts):
        if found := _REPOSITORY.fullmatch(part):
            return int(found[1])
    raise ValueRangeError(
        f"{str(path)!r}: a folder above it must bear the repository's name, which ends in L0_k; "
        "got none. Name it so, or pass k=."
    )
