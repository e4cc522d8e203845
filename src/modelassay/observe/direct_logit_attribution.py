"""How much each part of a model adds to a logit directly, with the final norm's scale frozen."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.observe.logit_attribution import through_norm
from modelassay.observe.stream_parts import Replacement, StreamParts, stream_parts
from modelassay.subjects.subject import Subject

_TOLERANCE = 1e-3  # ours: of the largest sum of absolute parts, far above float32's rounding


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectLogitAttribution:
    """Each part's share of a logit, or of a difference of two."""

    parts: tuple[str, ...]
    """Names; the last is "constant", the biases of the final norm and the unembedding."""
    attribution: Float[Tensor, "prompt part"]
    """In logits; a row sums to `logit`."""
    logit: Float[Tensor, " prompt"]
    """The model's own: of the target against the contrast, or against the vocabulary's mean."""
    error: float
    """Largest difference between a row's sum and the logit."""

    def mean(self) -> Float[Tensor, " part"]:
        """Mean over prompts."""
        return self.attribution.mean(0)


@torch.no_grad()
def direct_logit_attribution(
    subject: Subject,
    tokens: Int[Tensor, "prompt token"],
    targets: Int[Tensor, " prompt"],
    *,
    contrasts: Int[Tensor, " prompt"] | None = None,
    positions: Int[Tensor, " prompt"] | None = None,
    heads: bool = True,
    replacement: Replacement | None = None,
) -> DirectLogitAttribution:
    """Attribute logits to embedding, heads, MLPs and latents.

    With the last stream ``x = sum of parts`` and a norm ``n(x) = w * P x / s(x) + b`` the logit
    difference is ``sum of parts (u · w * P part) / s(x) + u · b + b_U``, where u is the difference
    of two columns of the unembedding, or a column minus the mean of all. The scale s(x) stays
    that of the whole stream. So this is the direct path: what a part does by way of later layers
    is counted as theirs, and a part may add to a logit that it lowers in the end.

    Args:
        subject: a verified language model.
        tokens: prompts of equal length.
        targets: the token whose logit is attributed, per prompt.
        contrasts: the token that it is compared with; None for the mean over the vocabulary.
        positions: where the logit is read; None for the last token.
        heads: whether attention is told apart by heads where that is exact.
        replacement: latents of a dictionary in place of the site that it reads.

    Raises:
        UnsupportedModelError: no verified language model, logits that are capped, or parts that
            do not sum to the logit.
        ValueRangeError: a token or a position out of range.

    Reference: Elhage et al. 2021, "A mathematical framework for transformer circuits", direct
    paths; Wang et al. 2022 (IOI), section 3.1.
    """
    _check_targets(subject, tokens, targets, contrasts)
    if positions is None:
        positions = torch.full((len(tokens),), tokens.shape[1] - 1)
    found = stream_parts(subject, tokens, positions, heads=heads, replacement=replacement)
    unembedding = subject.unembedding().float()
    bias = getattr(subject.unembedding_module, "bias", None)
    offsets = unembedding.new_zeros(unembedding.shape[1]) if bias is None else bias.float()
    gain, norm_bias = _frozen_norm(subject, found)
    scale = _logit_scale(subject, found, gain, norm_bias, unembedding, offsets)
    wanted, offset = _columns(targets, contrasts, unembedding, offsets)
    direct = torch.einsum("ipd,id->ip", gain, wanted) * scale
    constant = (wanted @ norm_bias + offset) * scale
    attribution = torch.cat([direct, constant[:, None]], 1).cpu()
    logit = _difference(found.logits.float(), targets, contrasts).cpu()
    error = float((attribution.sum(1) - logit).abs().max())
    size = float(attribution.abs().sum(1).max())
    if not error <= _TOLERANCE * max(size, 1e-6):
        raise UnsupportedModelError(
            f"Attributions must sum to the logit; they are off by {error:.3g} of {size:.3g} in "
            f"{subject.name!r}. Its final norm or unembedding is of a form that is not known here."
        )
    return DirectLogitAttribution(
        parts=(*found.names, "constant"), attribution=attribution, logit=logit, error=error
    )


def _frozen_norm(
    subject: Subject, found: StreamParts
) -> tuple[Float[Tensor, "prompt part d_model"], Float[Tensor, " d_model"]]:
    """Every part through the final norm at the scale of the whole stream; and the norm's bias."""
    norm = subject.final_norm
    if norm is None:
        return found.parts, torch.zeros_like(found.stream[0])
    dtype = subject.dtype
    bias = norm(torch.zeros_like(found.stream[:1], dtype=dtype))[0].float()
    whole = through_norm(norm, found.stream)
    reached = norm(found.stream.to(dtype)).float() - bias
    # The norm's division, from what it makes of the stream: one number a prompt.
    shrink = (reached * whole).sum(1) / whole.square().sum(1).clamp(min=1e-30)
    if not torch.allclose(reached, whole * shrink[:, None], rtol=1e-3, atol=1e-3):
        raise UnsupportedModelError(
            "The final norm must be a layer norm or an RMS norm, so that its scale can be held; "
            f"got {type(norm).__name__} in {subject.name!r}, which is neither."
        )
    flat = through_norm(norm, found.parts.flatten(0, 1)).reshape(found.parts.shape)
    return flat * shrink[:, None, None], bias


def _logit_scale(
    subject: Subject,
    found: StreamParts,
    gain: Float[Tensor, "prompt part d_model"],
    norm_bias: Float[Tensor, " d_model"],
    unembedding: Float[Tensor, "d_model vocab"],
    offsets: Float[Tensor, " vocab"],
) -> float:
    """The factor between unembedding and logits: 1, but in Cohere and its like."""
    plain = (gain.sum(1) + norm_bias) @ unembedding + offsets
    logits = found.logits.float()
    scale = float((plain * logits).sum() / plain.square().sum().clamp(min=1e-30))
    if not torch.allclose(plain * scale, logits, rtol=1e-3, atol=2e-3 * float(logits.abs().max())):
        raise UnsupportedModelError(
            "Logits must be a multiple of the unembedding's product, so that parts add up; those "
            f"of {subject.name!r} are not (a soft cap?). Attribution is not defined there."
        )
    return scale


def _columns(
    targets: Int[Tensor, " prompt"],
    contrasts: Int[Tensor, " prompt"] | None,
    unembedding: Float[Tensor, "d_model vocab"],
    offsets: Float[Tensor, " vocab"],
) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, " prompt"]]:
    chosen, offset = unembedding.T[targets], offsets[targets]
    if contrasts is None:
        return chosen - unembedding.mean(1), offset - offsets.mean()
    return chosen - unembedding.T[contrasts], offset - offsets[contrasts]


def _difference(
    logits: Float[Tensor, "prompt vocab"],
    targets: Int[Tensor, " prompt"],
    contrasts: Int[Tensor, " prompt"] | None,
) -> Float[Tensor, " prompt"]:
    rows = torch.arange(len(logits))
    against = logits.mean(1) if contrasts is None else logits[rows, contrasts]
    return logits[rows, targets] - against


def _check_targets(
    subject: Subject,
    tokens: Int[Tensor, "prompt token"],
    targets: Int[Tensor, " prompt"],
    contrasts: Int[Tensor, " prompt"] | None,
) -> None:
    for name, chosen in (("targets", targets), ("contrasts", contrasts)):
        if chosen is None:
            continue
        inside = (chosen >= 0) & (chosen < max(subject.vocab_size, 1))
        if len(chosen) != len(tokens) or not bool(inside.all()):
            raise ValueRangeError(
                f"{name} must be one token id per prompt, from 0 to {subject.vocab_size - 1}; got "
                f"{chosen.tolist()} for {len(tokens)} prompts. Use this model's own tokenizer."
            )
