"""Which latents are changed where, and to what."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.decompositions.codes import Codes

_REDRAWS = 20
_NEGLIGIBLE = 0.1  # of the latent's standard deviation: a smaller change is drawn again (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interventions:
    """Changes of single latents at single tokens."""

    latent: Int[Tensor, " sample"]
    row: Int[Tensor, " sample"]
    """Row of the harvest at which the latent fires and is changed."""
    change: Float[Tensor, " sample"]
    """New value minus old value, in the latent's units."""
    document: Int[Tensor, " sample"]

    def by_document(
        self, values: Float[Tensor, " sample"], width: int
    ) -> Float[Tensor, "document latent"]:
        """Sum of each latent's samples in each document, 0 where there are none; float64."""
        n_documents = int(self.document.max()) + 1 if len(self.document) else 1
        sums = torch.zeros(n_documents * width, dtype=torch.float64)
        sums.index_add_(0, self.document * width + self.latent, values.double())
        return sums.view(n_documents, width)

    def counts(self, width: int) -> Int[Tensor, " latent"]:
        """Number of samples of each latent."""
        return torch.bincount(self.latent, minlength=width)


def draw_interventions(
    codes: Codes,
    document_of_row: Int[Tensor, " token"],
    eligible: Bool[Tensor, " token"],
    latents: Int[Tensor, " chosen"],
    samples_per_latent: int,
    generator: torch.Generator,
) -> Interventions:
    """Draw tokens on which each latent fires, and a new value for it on each.

    Tokens are spread over as many documents as there are, since those of one document resemble each
    other: no document gives its second token before each has given its first. The new value is that
    of a random token: it follows the latent's own distribution over tokens, zeros included, and is
    drawn again while it is all but the old one. A sample whose latent never changes is left out.

    Args:
        codes: held-out codes.
        document_of_row: document of each token.
        eligible: tokens that may be chosen.
        latents: which latents.
        samples_per_latent: at most so many.
        generator: for all draws.
    """
    seed = int(torch.randint(2**31, (), generator=generator))
    rng = np.random.default_rng(seed)
    columns, document = codes.to_scipy().tocsc(), document_of_row.cpu().numpy()
    allowed = eligible.cpu().numpy()
    nothing = np.zeros(0, dtype=np.int64)
    parts: list[tuple[np.ndarray, ...]] = [(nothing, nothing, np.zeros(0))]
    for latent in latents.tolist():
        column = slice(columns.indptr[latent], columns.indptr[latent + 1])
        rows, values = columns.indices[column], columns.data[column]
        chosen = _spread(rows, document, allowed, samples_per_latent, rng)
        change = _changes(values[chosen], values, codes.n_tokens, rng)
        kept = ~np.isnan(change)
        parts.append((np.full(int(kept.sum()), latent), rows[chosen][kept], change[kept]))
    latent, row, change = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    row = torch.from_numpy(row).long()
    return Interventions(
        latent=torch.from_numpy(latent).long(),
        row=row,
        change=torch.from_numpy(change).float(),
        document=document_of_row[row],
    )


def _spread(
    rows: np.ndarray,
    document: np.ndarray,
    allowed: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Indices into `rows`: random rows, a second one of a document after a first of each."""
    order = rng.permutation(np.nonzero(allowed[rows])[0])
    # Stable, so that within a document the order stays random; then each row's turn in it.
    by_document = order[np.argsort(document[rows[order]], kind="stable")]
    owners = document[rows[by_document]]
    _, first, sizes = np.unique(owners, return_index=True, return_counts=True)
    turn = np.arange(len(owners)) - np.repeat(first, sizes)
    return by_document[np.lexsort((rng.random(len(owners)), turn))[:count]]


def _changes(
    old: np.ndarray, active: np.ndarray, n_tokens: int, rng: np.random.Generator
) -> np.ndarray:
    """New value minus old value per sample; NaN where no draw differed."""
    if len(old) == 0:
        return old.astype(np.float64)
    rate = len(active) / n_tokens
    deviation = np.sqrt(max(0.0, np.mean(active**2) * rate - (np.mean(active) * rate) ** 2))
    shape = (len(old), _REDRAWS)
    drawn = np.where(rng.random(shape) < rate, rng.choice(active, size=shape), 0.0)
    change = drawn - old[:, None]
    large = np.abs(change) > _NEGLIGIBLE * deviation
    first = change[np.arange(len(old)), large.argmax(1)]
    return np.where(large.any(1), first, np.nan)
