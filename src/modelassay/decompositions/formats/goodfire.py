"""Read the dictionaries that Goodfire shares: ReLU, with nothing subtracted from the input.

A file is a state dict with ``encoder_linear.weight`` [width, d], ``encoder_linear.bias``,
``decoder_linear.weight`` [d, width] and ``decoder_linear.bias``; its name ends in the layer, as in
``Llama-3.1-8B-Instruct-SAE-l19.pth``.
"""

import re
from pathlib import Path

from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_state_dict,
    sizes_of,
)
from modelassay.decompositions.sparsifiers import ReLUActivation
from modelassay.subjects.site import Site

_KIND = "Goodfire"
_FILE = re.compile(r".*-SAE-l(\d+)\.(?:pt|pth)")


def read_goodfire(path: str | Path, *, site: Site | None = None) -> Dictionary:
    """Read a ``.pt`` or ``.pth`` file.

    Args:
        path: the file.
        site: where the dictionary belongs; None means ``resid_post`` of the layer in its name.

    Raises:
        CorruptFileError: if the file is missing, truncated, a foreign pickle or lacks a tensor.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if there is something else in the file.
    """
    path = Path(path)
    state = read_state_dict(path, _KIND)
    d, width = sizes_of(state, path, inputs="decoder_linear.bias", latents="encoder_linear.bias")
    wanted = {
        "encoder_linear.weight": [width, d],
        "encoder_linear.bias": [width],
        "decoder_linear.weight": [d, width],
        "decoder_linear.bias": [d],
    }
    weights = check_tensors(state, wanted, path)
    if site is None and (named := _FILE.fullmatch(path.name)):
        site = Site("resid_post", int(named[1]))
    return assemble(
        weights["encoder_linear.weight"].t(),
        weights["encoder_linear.bias"],
        weights["decoder_linear.weight"].t(),
        weights["decoder_linear.bias"],
        ReLUActivation(),
        subtracts=False,
        reads=site,
    )
