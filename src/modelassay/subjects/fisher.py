"""The Fisher metric of a site: how far a small change of the activation moves the predictions."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


def score_gradients(
    subject: Subject,
    site: Site,
    tokens: Int[Tensor, "batch token"],
    mask: Bool[Tensor, "batch token"],
    *,
    draws: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch token d"], Float[Tensor, "draw batch token d"]]:
    """Activations, and random gradients g whose second moment is the Fisher matrix.

    At every real position a label is drawn from the model's own prediction, independently, and g_t
    is the gradient of the sum of their log-probabilities by the activation at token t. With the
    labels' randomness E[g_t] = 0, cross terms between positions vanish, and

        E[g_t g_t^T] = F_t = sum over positions s >= t of J_st^T (diag p_s - p_s p_s^T) J_st,

    where J_st is the Jacobian of the logits at s by the activation at t. To second order a small
    change δ at token t costs KL = δ^T F_t δ / 2 nats, summed over all predictions that it reaches.

    Args:
        subject: the model.
        site: where the activation stands.
        tokens: contexts, padded on the right.
        mask: True at real tokens.
        draws: how many independent gradients per token.
        generator: for the labels.

    Raises:
        ShapeError: the site does not hold one vector a token.
    """
    downstream = subject.downstream(site, tokens, mask=mask)
    if downstream.activation.ndim != 3:
        raise ShapeError(
            f"A site must hold one vector a token; got {list(downstream.activation.shape)} at "
            f"{site}. Choose a site [batch token d], such as a residual stream."
        )
    activation = downstream.activation.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = downstream(activation, gradients=True).logits
        assert logits is not None
        log_p = logits.float().log_softmax(-1)[mask]
    gradients = []
    for draw in range(draws):
        labels = _sample(log_p.detach(), generator)
        score = log_p.gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, activation, retain_graph=draw + 1 < draws)
        gradients.append(gradient)
    return activation.detach(), torch.stack(gradients)


def _sample(log_p: Float[Tensor, "row vocab"], generator: torch.Generator) -> Int[Tensor, " row"]:
    # By inversion: one uniform number a row, where Gumbel noise would take one a word.
    uniform = torch.rand(len(log_p), 1, generator=generator).to(log_p.device)
    cumulative = log_p.exp().cumsum(1)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])
    return drawn[:, 0].clamp(max=log_p.shape[1] - 1)
