"""What `modelassay convert` does: read, write, read back and compare; and list what there is."""

from pathlib import Path, PurePosixPath

import torch

from modelassay.cli.schemas import (
    SCHEMA_VERSION,
    ConvertAllResult,
    ConvertListResult,
    ConvertResult,
)
from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.formats.locating import list_dictionaries
from modelassay.decompositions.formats.registry import (
    READERS,
    read_dictionary,
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


def described(result: ConvertResult) -> str:
    """A conversion for people."""
    place = f" of {result['reads']}" if result["reads"] else ""
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
    expected = before(x)
    largest = float((after(x) - expected).abs().max())
    return largest / max(float(expected.abs().max()), torch.finfo(torch.float32).tiny)
