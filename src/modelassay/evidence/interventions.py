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
    slot: Int[Tensor, " sample"]
    """Running number of the sample within its latent."""

    def table(self, values: Float[Tensor, " sample"], width: int) -> Float[Tensor, "latent slot"]:
        """Values per sample as a table over latents, NaN where a latent has fewer samples."""
        n_slots = int(self.slot.max()) + 1 if len(self.slot) else 1
        table = torch.full((width, n_slots), torch.nan)
        table[self.latent, self.slot] = values.float()
        return table


def draw_interventions(
    codes: Codes,
    document_of_row: Int[Tensor, " token"],
    eligible: Bool[Tensor, " token"],
    latents: Int[Tensor, " chosen"],
    samples_per_latent: int,
    generator: torch.Generator,
) -> Interventions:
    """Draw tokens on which each latent fires, and a new value for it on each.

    At most one token a document, so that samples are independent; each document counts the same.
    The new value is that of a random token: it follows the latent's own distribution over tokens,
    zeros included, and is drawn again while it is all but the old one. A sample whose latent never
    changes is left out.

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
    parts: list[tuple[np.ndarray, ...]] = [(nothing, nothing, np.zeros(0), nothing)]
    for latent in latents.tolist():
        column = slice(columns.indptr[latent], columns.indptr[latent + 1])
        rows, values = columns.indices[column], columns.data[column]
        chosen = _one_a_document(rows, document, allowed, samples_per_latent, rng)
        change = _changes(values[chosen], values, codes.n_tokens, rng)
        kept = ~np.isnan(change)
        n = int(kept.sum())
        parts.append((np.full(n, latent), rows[chosen][kept], change[kept], np.arange(n)))
    latent, row, change, slot = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Interventions(
        latent=torch.from_numpy(latent).long(),
        row=torch.from_numpy(row).long(),
        change=torch.from_numpy(change).float(),
        slot=torch.from_numpy(slot).long(),
    )


def _one_a_document(
    rows: np.ndarray,
    document: np.ndarray,
    allowed: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Indices into `rows`: random rows of random documents, at most one of each."""
    order = rng.permutation(np.nonzero(allowed[rows])[0])
    _, first = np.unique(document[rows[order]], return_index=True)
    return order[rng.permutation(first)[:count]]


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
