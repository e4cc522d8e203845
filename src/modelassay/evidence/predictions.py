"""Predictions under a changed activation, and how far they are from the clean ones."""

from jaxtyping import Float
from torch import Tensor

from modelassay.subjects.site import Site
from modelassay.subjects.subject import Downstream, Subject


def final_residual(
    subject: Subject, downstream: Downstream, activation: Float[Tensor, "batch token d"]
) -> Float[Tensor, "batch token d_model"]:
    """The residual stream after the last block, with another activation at the site.

    The unembedding is left to `log_predictions`, for only those tokens that are looked at: with a
    large vocabulary it costs more than the blocks.
    """
    last = Site("resid_post", subject.n_layers - 1)
    return downstream(activation, read=[last], until=last).activations[last]


def log_predictions(
    subject: Subject, residual: Float[Tensor, "*row d_model"]
) -> Float[Tensor, "*row vocab"]:
    """Log-probabilities of the next token from the last block's residual stream, in float32."""
    return subject.logits_of(residual).float().log_softmax(-1)


def kl_nats(
    log_p: Float[Tensor, "*row vocab"], log_q: Float[Tensor, "*row vocab"]
) -> Float[Tensor, "*row"]:
    """KL(p || q) in nats, from log-probabilities, exact where it is tiny.

    Summed as `p (exp(-Δ) - 1 + Δ)` with `Δ = log p - log q`, which is the same since p and q both
    sum to 1. Each term is at least 0 and second order in Δ, so that rounding does not swamp a small
    divergence; the textbook sum `p Δ` is off by the rounding of the sums to 1.
    """
    difference = log_p - log_q
    return (log_p.exp() * ((-difference).expm1() + difference)).sum(-1)
