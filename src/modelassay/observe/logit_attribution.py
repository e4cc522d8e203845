"""Which tokens a direction promotes and suppresses when it reaches the end of the model."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ShapeError
from modelassay.subjects.subject import Subject

_CHUNK = 512  # directions at a time: bounds the [direction, vocab] table


@dataclass(frozen=True, kw_only=True, slots=True)
class LogitAttribution:
    """The tokens whose logits each direction raises and lowers most."""

    promoted: Int[Tensor, "latent rank"]
    """Token ids, strongest first."""
    promoted_logits: Float[Tensor, "latent rank"]
    """Change of the logit against the vocabulary's mean, per unit along the direction, at a final
    residual stream of root mean square 1."""
    suppressed: Int[Tensor, "latent rank"]
    """Token ids, strongest (lowest) first."""
    suppressed_logits: Float[Tensor, "latent rank"]


def logit_attribution(
    subject: Subject, directions: Float[Tensor, "latent d_model"], *, count: int = 10
) -> LogitAttribution:
    """Read directions of the residual stream through the final norm and the unembedding.

    ``a_i = centred(W_U)^T (w * P d_i)`` with the norm's weight `w`, its centring `P` (the identity
    for an RMS norm) and each token's unembedding taken against the mean over the vocabulary. The
    norm also divides by the size of the stream; that factor depends on the token but not on the
    direction, and is left out. So is all that later layers do with the direction: this is the
    direct path only, and the further from the last layer, the less it says.

    Args:
        subject: the model.
        directions: in the residual stream, one per latent.
        count: tokens on each side; at most the vocabulary.

    Raises:
        ShapeError: if the directions do not lie in the residual stream.
        UnsupportedModelError: if the subject is no verified language model.

    Reference: nostalgebraist 2020 (logit lens); Elhage et al. 2021, "A mathematical framework for
    transformer circuits", direct paths.
    """
    unembedding = subject.unembedding().float()
    if directions.shape[1] != unembedding.shape[0]:
        raise ShapeError(
            f"directions must have {unembedding.shape[0]} components, the residual stream's; got "
            f"{directions.shape[1]}. Logit attribution is for decompositions that write there."
        )
    unembedding = unembedding - unembedding.mean(1, keepdim=True)
    count = min(count, unembedding.shape[1])
    normed = through_norm(subject.final_norm, directions.to(unembedding))
    highest, lowest = [], []
    for chunk in normed.split(_CHUNK):
        change = chunk @ unembedding
        highest.append(change.topk(count))
        lowest.append(change.topk(count, largest=False))
    return LogitAttribution(
        promoted=torch.cat([part.indices for part in highest]).cpu(),
        promoted_logits=torch.cat([part.values for part in highest]).cpu(),
        suppressed=torch.cat([part.indices for part in lowest]).cpu(),
        suppressed_logits=torch.cat([part.values for part in lowest]).cpu(),
    )


@torch.no_grad()
def through_norm(
    norm: nn.Module | None, directions: Float[Tensor, "latent d_model"]
) -> Float[Tensor, "latent d_model"]:
    """Directions after a norm, without its division by the size of the stream.

    The weight and the centring are measured, not read from attributes, whose names and meanings
    differ (Gemma multiplies by 1 + weight): a vector of mean 0 and root mean square 1 leaves the
    norm as itself times the weight.
    """
    if norm is None:
        return directions
    width = directions.shape[1]
    probe = torch.ones(width, device=directions.device)
    probe[1::2] = -1
    if width % 2:  # end on a triple of mean 0
        probe[-3:] = torch.tensor([1.0, 1.0, -2.0])
    probe = (probe / probe.square().mean().sqrt()).to(next(norm.parameters(), probe).dtype)
    weight = ((norm(probe) - norm(-probe)) / 2 / probe).to(directions)
    centres = torch.allclose(norm(probe + 1), norm(probe), atol=1e-3, rtol=1e-3)
    if centres:
        directions = directions - directions.mean(1, keepdim=True)
    return directions * weight
