"""What one depth's logits say, token by token, beside the model's own prediction."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

MEASURES = ("kl", "cross_entropy", "entropy", "rank", "agreement")
"""Measures that are averaged over tokens; see `Measured`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Final:
    """The model's own prediction, which every depth is compared with."""

    probabilities: Float[Tensor, "token vocab"]
    entropy: Float[Tensor, " token"]
    top: Int[Tensor, "token rank"]

    @staticmethod
    def of(logits: Float[Tensor, "token vocab"], count: int) -> "Final":
        """The prediction that some logits make, with its `count` likeliest tokens."""
        logits = logits.float()
        probabilities = logits.softmax(-1)
        entropy = _log_total(logits) - _dot(probabilities, logits)
        return Final(probabilities=probabilities, entropy=entropy, top=logits.topk(count).indices)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One depth against the model's prediction; in nats."""

    top: Int[Tensor, "token rank"]
    """Likeliest tokens, best first."""
    top_probabilities: Float[Tensor, "token rank"]
    entropy: Float[Tensor, " token"]
    kl: Float[Tensor, " token"]
    """KL(final || lens) = sum over v of p_final(v) log(p_final(v) / p_lens(v))."""
    cross_entropy: Float[Tensor, " token"]
    """-log p_lens(target)."""
    rank: Int[Tensor, " token"]
    """Tokens with a strictly higher logit than the target: 0 is best, and ties count for none."""
    agreement: Float[Tensor, " token"]
    """Share of the final prediction's likeliest tokens that are among the lens's."""


def measure(
    logits: Float[Tensor, "token vocab"], final: Final, targets: Int[Tensor, " token"]
) -> Measured:
    """Measure one depth's logits.

    With ``Z = log sum exp``: ``H = Z - p · logits``, ``KL = Z - p_final · logits - H_final`` and
    ``CE = Z - logits[target]``, so a single softmax serves all of them.

    Args:
        logits: of the lens.
        final: the model's own prediction at the same positions.
        targets: the tokens that came next.
    """
    logits = logits.float()
    probabilities, total = logits.softmax(-1), _log_total(logits)
    top = logits.topk(final.top.shape[1])
    reached = logits.gather(1, targets[:, None])
    shared = (top.indices[:, :, None] == final.top[:, None, :]).any(1)
    # Rounding may leave a tiny negative number where the two predictions are the same.
    kl = (total - _dot(final.probabilities, logits) - final.entropy).clamp(min=0)
    return Measured(
        top=top.indices,
        top_probabilities=(top.values - total[:, None]).exp(),
        entropy=total - _dot(probabilities, logits),
        kl=kl,
        cross_entropy=total - reached[:, 0],
        rank=(logits > reached).sum(1),
        agreement=shared.float().mean(1),
    )


def _log_total(logits: Float[Tensor, "token vocab"]) -> Float[Tensor, " token"]:
    return logits.logsumexp(-1)


def _dot(
    left: Float[Tensor, "token vocab"], right: Float[Tensor, "token vocab"]
) -> Float[Tensor, " token"]:
    # A product of rows, without a temporary table.
    return torch.linalg.vecdot(left, right)
