"""The residual stream at all depths in one pass, and its logits through a lens."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import UnsupportedModelError
from modelassay.observe.lenses.lens import Lens, depth_sites
from modelassay.subjects.subject import Subject

_CHECKED = 16  # tokens at which the last depth is compared with the model's logits (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """What one pass left at every depth."""

    resid: tuple[Float[Tensor, "batch token d_model"], ...]
    """By depth: before the first block, then after each."""
    logits: Float[Tensor, "batch token vocab"]
    """The model's own."""


def read_streams(
    subject: Subject,
    tokens: Int[Tensor, "batch token"],
    mask: Bool[Tensor, "batch token"] | None = None,
) -> Streams:
    """Run the model and keep its residual stream at all depths, as the blocks hand it on.

    The hooks read the stream before the final norm, so no depth is normed twice.

    Raises:
        UnsupportedModelError: the subject is no verified language model.
        ShapeError: tokens that are no ids, or none.
        ValueRangeError: ids outside the vocabulary, or too long a context.
    """
    sites = depth_sites(subject)
    run = subject.run(tokens, mask=mask, read=sites)
    assert run.logits is not None
    return Streams(resid=tuple(run.activations[site] for site in sites), logits=run.logits)


def lens_logits(
    subject: Subject,
    lens: Lens,
    resid: tuple[Float[Tensor, "token d_model"], ...],
    logits: Float[Tensor, "token vocab"],
) -> Iterator[Float[Tensor, "token vocab"]]:
    """Logits of every depth through a lens, one depth at a time; the last is the model's own.

    ``softcap(W_U norm(translate(h)) + b_U)`` in the model's own code, so that caps and scales are
    never left out. The last depth must reproduce the model's logits at some of the tokens.

    Args:
        subject: the model.
        lens: translates the stream of every depth.
        resid: the stream by depth, at some tokens.
        logits: the model's own at these tokens.

    Raises:
        UnsupportedModelError: the last depth does not reproduce the model's logits.
    """
    # A wrong norm or head is wrong at every token: a few tell, and save an unembedding.
    some = torch.linspace(0, len(logits) - 1, min(len(logits), _CHECKED)).round().long()
    with torch.no_grad():
        last = subject.logits_of(resid[-1][some])
        check_last(subject, last, logits[some])
        for depth, stream in enumerate(resid[:-1]):
            yield subject.logits_of(lens.translate(stream, depth))
    yield logits


def check_last(
    subject: Subject, reached: Float[Tensor, "token vocab"], logits: Float[Tensor, "token vocab"]
) -> None:
    """Refuse a model whose last residual stream, read by the lens, gives other logits.

    Raises:
        UnsupportedModelError: they differ by more than rounding.
    """
    # 512 roundings (ours) of the largest logit, as when roles are verified at load.
    tolerance = min(512 * torch.finfo(logits.dtype).eps, 0.05) * float(logits.abs().max())
    difference = float((reached - logits).abs().max())
    if not difference <= tolerance:
        raise UnsupportedModelError(
            "The lens of the last layer must reproduce the model's logits to "
            f"{tolerance:.1g}; got a difference of {difference:.3g} in {subject.name!r}. "
            "Something acts between its last block and its unembedding: no lens can be trusted."
        )
