"""How much of the activations the predicted and the novel part of a temporal dictionary explain."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from modelassay.activations.context_stream import ContextBatch
from modelassay.core.errors import TooFewTokensError
from modelassay.decompositions.temporal import TemporalDictionary


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalShares:
    """Explained variance of the parts of x̂.

    ``1 - tr cov(x - part) / tr cov(x)`` of each part alone, so with the constant that suits it
    best: the dictionary's bias is fitted to both parts together.
    """

    both: float
    """Of the whole reconstruction, with the dictionary's own bias."""
    predicted: float
    """Of what the predicted codes add."""
    novel: float
    """Of what the novel codes add."""
    predicted_energy: float
    """``mean |x̂_predicted|²`` over its sum with ``mean |x̂_novel|²``."""
    l0: float
    """Novel codes of a token."""
    tokens: int
    """Tokens that this was measured on."""


@dataclass(kw_only=True, slots=True)
class _Spread:
    """Sums over rows that give their mean square, with and without their mean."""

    total: Float64[Tensor, " d"]
    squares: float = 0.0

    def add(self, rows: Float64[Tensor, "token d"]) -> None:
        self.total += rows.sum(0)
        self.squares += float(rows.square().sum())

    def about_mean(self, count: int) -> float:
        return self.squares - float(self.total @ self.total) / count


@torch.no_grad()
def temporal_shares(
    dictionary: TemporalDictionary, batches: Iterable[ContextBatch]
) -> TemporalShares:
    """Measure the parts on some contexts, best held-out ones.

    A projection on any direction explains something of a token: with d dimensions, on average 1 / d
    of its squared length. The null is the same dictionary on contexts whose tokens are shuffled
    over all contexts: what it predicts there, it predicts without a context.

    Args:
        dictionary: ready for inference.
        batches: what is measured, such as a `ContextStream` of one epoch.

    Raises:
        TooFewTokensError: if there is no token in them.
    """
    x, left, without_predicted, without_novel, predicted, novel = (
        _Spread(total=torch.zeros(dictionary.d_in, dtype=torch.float64)) for _ in range(6)
    )
    count = active = 0
    bias = dictionary.bias.cpu().double()
    for batch in batches:
        codes = dictionary.encode_contexts(batch.activations, batch.mask)
        parts = (dictionary.decode_predicted(codes), dictionary.decode_novel(codes))
        p, n = (part.cpu()[batch.mask].double() for part in parts)
        rows = batch.activations[batch.mask].double()
        x.add(rows)
        left.add(rows - p - n - bias)
        without_predicted.add(rows - p)
        without_novel.add(rows - n)
        predicted.add(p)
        novel.add(n)
        active += int(codes.novel.active().sum())
        count += len(rows)
    if count == 0:
        raise TooFewTokensError(
            "There must be tokens to measure on; got none. Hold out more documents."
        )
    spread = x.about_mean(count)
    return TemporalShares(
        both=1 - left.squares / spread,
        predicted=1 - without_predicted.about_mean(count) / spread,
        novel=1 - without_novel.about_mean(count) / spread,
        predicted_energy=predicted.squares / (predicted.squares + novel.squares),
        l0=active / count,
        tokens=count,
    )
