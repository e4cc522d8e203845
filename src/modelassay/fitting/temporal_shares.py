"""How much of the activations the predicted and the novel part of a temporal dictionary explain."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.context_stream import ContextBatch
from modelassay.core.errors import TooFewTokensError
from modelassay.decompositions.temporal import TemporalDictionary


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalShares:
    """Explained variance, ``1 - mean |x - x̂|² / mean |x - mean|²``, of the parts of x̂."""

    both: float
    """Of the whole reconstruction."""
    predicted: float
    """With the predicted codes and the bias alone."""
    novel: float
    """With the novel codes and the bias alone."""
    predicted_energy: float
    """``mean |x̂_predicted|²`` over its sum with ``mean |x̂_novel|²``."""
    l0: float
    """Novel codes of a token."""
    tokens: int
    """Tokens that this was measured on."""


@torch.no_grad()
def temporal_shares(
    dictionary: TemporalDictionary, batches: Iterable[ContextBatch]
) -> TemporalShares:
    """Measure the parts on some contexts, best held-out ones.

    A projection on any direction explains something of a token: with d dimensions, a random one
    explains 1 / d of the variance around the bias. Compare a dictionary with the same one on
    contexts whose tokens are shuffled.

    Args:
        dictionary: ready for inference.
        batches: what is measured, such as a `ContextStream` of one epoch.

    Raises:
        TooFewTokensError: if there is no token in them.
    """
    d = dictionary.d_in
    sums = torch.zeros(7, dtype=torch.float64)
    mean, squares, count = torch.zeros(d, dtype=torch.float64), 0.0, 0
    for batch in batches:
        codes = dictionary.encode_contexts(batch.activations, batch.mask)
        parts = (dictionary.decode_predicted(codes), dictionary.decode_novel(codes))
        predicted, novel = (part.cpu()[batch.mask].double() for part in parts)
        x = batch.activations[batch.mask].double()
        left = x - dictionary.bias.cpu().double()
        tokens = [left - predicted - novel, left - predicted, left - novel, predicted, novel]
        sums[:5] += torch.tensor([_total(part) for part in tokens], dtype=torch.float64)
        sums[5] += float(codes.novel.active().sum())
        mean += x.sum(0)
        squares += _total(x)
        count += len(x)
    if count == 0:
        raise TooFewTokensError(
            "There must be tokens to measure on; got none. Hold out more documents."
        )
    spread = squares - float(mean @ mean) / count
    both, with_predicted, with_novel, predicted, novel, active, _ = sums.tolist()
    return TemporalShares(
        both=1 - both / spread,
        predicted=1 - with_predicted / spread,
        novel=1 - with_novel / spread,
        predicted_energy=predicted / (predicted + novel),
        l0=active / count,
        tokens=count,
    )


def _total(rows: Float[Tensor, "token d"]) -> float:
    return float(rows.square().sum())
