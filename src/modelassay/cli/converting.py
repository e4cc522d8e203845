"""What `modelassay convert` does: read, write, read back and compare; and list what there is."""

from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.cli.convert_schemas import (
    ConvertAllResult,
    ConvertCrossLayerResult,
    ConvertListResult,
    ConvertResult,
)
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.core.randomness import derived
from modelassay.decompositions.cross_layer import CrossLayerTranscoder
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.formats.locating import list_dictionaries
from modelassay.decompositions.formats.registry import (
    READERS,
    read_cross_layer,
    read_dictionary,
    write_cross_layer,
    write_dictionary,
)

_TOKENS = 64  # random activations that both reconstruct (ours)
_FILES = (".safetensors", ".sae.pt", ".pt", ".pth")  # of formats in which a file is a dictionary


def convert_dictionary(
    source: str,
    folder: Path,
    *,
    to: str,
    model: str | None,
    force: bool,
    seed: int,
    mirror: Path | None = None,
) -> ConvertResult:
    """Convert, and measure how far the result's forward pass is from the original's.

    Raises:
        ModelassayError: for whatever the reader or the writer refuses.
    """
    before = read_dictionary(source, mirror=mirror)
    write_dictionary(before, folder, to=to, model_name=model, force=force)
    after = READERS[to](str(folder))
    return {
        "schema_version": SCHEMA_VERSION,
        "name": before.name,
        "format": to,
        "folder": str(folder),
        "width": before.width,
        "d_in": before.d_in,
        "d_out": before.d_out,
        "reads": None if before.reads is None else str(before.reads),
        "writes": None if before.writes is None else str(before.writes),
        "difference": _difference(before, after, seed),
    }


def convert_cross_layer(
    source: str,
    folder: Path,
    *,
    to: str,
    model: str | None,
    force: bool,
    seed: int,
    mirror: Path | None = None,
) -> ConvertCrossLayerResult:
    """Convert a cross-layer transcoder, and compare the reconstructions of all its layers.

    Raises:
        ModelassayError: for whatever the reader or the writer refuses.
    """
    name = source if ":" in source else f"modelassay:{source}"
    before = read_cross_layer(name, mirror=mirror)
    write_cross_layer(before, folder, to=to, model_name=model, force=force)
    after = read_cross_layer(f"{to}:{folder}")
    return {
        "schema_version": SCHEMA_VERSION,
        "name": before.name,
        "format": to,
        "folder": str(folder),
        "widths": [source.width for source in before.sources],
        "d_in": before.sources[0].d_in,
        "d_out": before.b_dec.shape[1],
        "reads": [str(site) for site in before.reads],
        "writes": [str(site) for site in before.writes],
        "difference": _difference_of_layers(before, after, seed),
    }


def convert_all(
    source: str,
    folder: Path,
    *,
    to: str,
    model: str | None,
    force: bool,
    seed: int,
    mirror: Path | None = None,
) -> ConvertAllResult:
    """Convert every dictionary below a name, each into a folder of its own.

    Raises:
        ModelassayError: for whatever the reader or the writer refuses, or if one is missing.
    """
    names = list_dictionaries(source, mirror=mirror)
    converted = [
        convert_dictionary(
            name,
            folder / _part(name, source),
            to=to,
            model=model,
            force=force,
            seed=seed,
            mirror=mirror,
        )
        for name in names
    ]
    return {"schema_version": SCHEMA_VERSION, "converted": converted}


def list_names(source: str, *, mirror: Path | None = None) -> ConvertListResult:
    """The names of all dictionaries below a name.

    Raises:
        ModelassayError: if there are none, or one is missing among the others.
    """
    names = list(list_dictionaries(source, mirror=mirror))
    return {"schema_version": SCHEMA_VERSION, "names": names}


def described(result: ConvertResult | ConvertCrossLayerResult) -> str:
    """A conversion for people."""
    reads = result["reads"]
    if isinstance(reads, list):
        reads = f"{reads[0]} to {reads[-1]}"
    place = f" of {reads}" if reads else ""
    return (
        f"{result['name']}{place} is at {result['folder']}, as {result['format']}.\n"
        f"Read back, its reconstructions differ by at most {result['difference']:.2g} of their "
        "largest entry."
    )


def _part(name: str, source: str) -> str:
    """Where a dictionary lies below the folder that was named."""
    part = name.removeprefix("modelassay:").removeprefix(source.removeprefix("modelassay:"))
    part = part.strip("/") or PurePosixPath(source.partition(":")[2] or source).name
    for ending in _FILES:
        if part.endswith(ending):
            return part.removesuffix(ending)
    return part


@torch.no_grad()
def _difference(before: Decomposition, after: Decomposition, seed: int) -> float:
    """Largest difference of two reconstructions, over the largest entry of the first.

    The activations are normal, of the bias' size: there the latents of a trained dictionary are
    as often active as not.
    """
    drawn = torch.randn(_TOKENS, before.d_in, generator=derived(seed, "convert"))
    x = drawn * before.bias.square().mean().sqrt().clamp(min=1)
    return _apart(after(x), before(x))


@torch.no_grad()
def _difference_of_layers(
    before: CrossLayerTranscoder, after: CrossLayerTranscoder, seed: int
) -> float:
    """Likewise, the largest of all layers."""
    size = before.b_dec.square().mean().sqrt().clamp(min=1)
    x = {
        source.reads: size
        * torch.randn(_TOKENS, source.d_in, generator=derived(seed, "convert", number))
        for number, source in enumerate(before.sources)
    }
    found, expected = after(x), before(x)
    return max(_apart(found[site], expected[site]) for site in expected)


def _apart(found: Float[Tensor, "token d"], expected: Float[Tensor, "token d"]) -> float:
    largest = float((found - expected).abs().max())
    return largest / max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
