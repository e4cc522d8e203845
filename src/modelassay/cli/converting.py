"""What `modelassay convert` does: read, write, read back and compare."""

from pathlib import Path

import torch

from modelassay.cli.schemas import SCHEMA_VERSION, ConvertResult
from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.formats.registry import (
    READERS,
    read_dictionary,
    write_dictionary,
)

_TOKENS = 64  # random activations that both reconstruct (ours)


def convert_dictionary(
    source: str, folder: Path, *, to: str, model: str | None, force: bool, seed: int
) -> ConvertResult:
    """Convert, and measure how far the result's forward pass is from the original's.

    Raises:
        ModelassayError: for whatever the reader or the writer refuses.
    """
    before = read_dictionary(source)
    write_dictionary(before, folder, to=to, model_name=model, force=force)
    after = READERS[to](str(folder))
    return {
        "schema_version": SCHEMA_VERSION,
        "name": before.name,
        "format": to,
        "width": before.width,
        "d_in": before.d_in,
        "d_out": before.d_out,
        "reads": None if before.reads is None else str(before.reads),
        "writes": None if before.writes is None else str(before.writes),
        "difference": _difference(before, after, seed),
    }


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
