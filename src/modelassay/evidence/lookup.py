"""Look-up tables that predict a latent from its tokens and position, with shrinkage."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy import sparse
from torch import Tensor

_MAX_ENTRIES = 2**22  # entries of one dense block, 32 MiB in float64 (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Level:
    """One table: groups of held-out tokens with equal histories, as the fit tokens know them."""

    of_token: np.ndarray
    """Group of each held-out token."""
    parent: np.ndarray
    """Group of the coarser table that each group lies in."""
    members: sparse.csr_matrix
    """[group, fit token]: 1 where the token has the group's history."""
    positions: sparse.csr_matrix
    """[group, position]: how many of the group's fit tokens stand at each position."""
    counts: np.ndarray
    """[group, 1]: number of fit tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupTables:
    """Backed-off tables: position, then token, then last two tokens, then last three.

    A table corrects the one before. The mean m of a group of n tokens moves the prediction f of the
    coarser table by its credibility,

        f + n τ² / (n τ² + σ²) (m - f),

    where σ² is the latent's variance within the table's groups and τ² its variance between them
    beyond f, both estimated from the fit tokens. So a table that knows nothing adds nothing, and
    one that determines the latent is believed at first sight.

    Reference: Bühlmann & Straub 1970 (credibility of means with unequal counts).
    """

    levels: tuple[_Level, ...]
    position: np.ndarray
    """Of each held-out token."""
    fit_position: np.ndarray
    """Of each fit token."""

    @staticmethod
    def build(fit: Int[Tensor, "fit_token 4"], heldout: Int[Tensor, "token 4"]) -> "LookupTables":
        """Group tokens by their histories.

        Args:
            fit: position, token, the token before, and the one before that, per fit token.
            heldout: the same for the held-out tokens.
        """
        position, fit_position = heldout[:, 0].numpy(), fit[:, 0].numpy()
        at_position = _indicator(fit_position, 1 + int(max(position.max(), fit_position.max())))
        base = 2 + int(max(fit[:, 1:].max(), heldout[:, 1:].max()))
        levels: list[_Level] = []
        of_token = np.zeros(len(heldout), dtype=np.int64)  # the table before the first: one group
        fit_key, key = np.zeros(len(fit), dtype=np.int64), of_token
        for lag in (1, 2, 3):
            fit_key = fit_key * base + fit[:, lag].numpy() + 1
            key = key * base + heldout[:, lag].numpy() + 1
            groups, first, of_group = np.unique(key, return_index=True, return_inverse=True)
            place = np.searchsorted(groups, fit_key).clip(max=len(groups) - 1)
            members = _indicator(np.where(groups[place] == fit_key, place, -1), len(groups))
            levels.append(
                _Level(
                    of_token=of_group,
                    parent=of_token[first],
                    members=members,
                    positions=sparse.csr_matrix(members @ at_position.T),
                    counts=np.asarray(members.sum(1)),
                )
            )
            of_token = of_group
        return LookupTables(levels=tuple(levels), position=position, fit_position=fit_position)

    def errors(self, fit: sparse.csc_matrix, heldout: sparse.csc_matrix) -> Iterator[np.ndarray]:
        """Held-out values minus predictions, [token, latent], some latents at a time.

        Args:
            fit: values on the fit tokens, [fit token, latent].
            heldout: values on the held-out tokens, [token, latent].
        """
        # Blocks are bounded by what is dense, the held-out values, and by what is sparse but long.
        density = max(heldout.shape[0], fit.nnz // max(1, fit.shape[1]))
        step = max(1, _MAX_ENTRIES // density)
        for start in range(0, heldout.shape[1], step):
            columns = slice(start, start + step)
            yield heldout[:, columns].toarray() - self._predict(fit[:, columns])

    def _predict(self, fit: sparse.csc_matrix) -> np.ndarray:
        fit = fit.astype(np.float64).tocoo()
        at_position = _indicator(self.fit_position, self.levels[0].positions.shape[1])
        squares = sparse.csr_matrix((fit.data**2, (fit.row, fit.col)), shape=fit.shape)
        counts = np.asarray(at_position.sum(1))
        by_position = _credible(
            sums=(at_position @ fit).toarray(),
            squares=(at_position @ squares).toarray(),
            counts=counts,
            prior=np.repeat(np.asarray(fit.mean(0)).reshape(1, -1), len(counts), axis=0),
        )
        # From here on everything is about the residual z - b, where b = by_position[position]. Its
        # square is z² - 2 z b + b², of which the first two terms exist only where z is not 0.
        terms = fit.data * (fit.data - 2 * by_position[self.fit_position[fit.row], fit.col])
        crossed = sparse.csr_matrix((terms, (fit.row, fit.col)), shape=fit.shape)
        values = fit.tocsr()
        prediction = np.zeros((1, fit.shape[1]))
        for level in self.levels:
            prediction = _credible(
                sums=(level.members @ values).toarray() - level.positions @ by_position,
                squares=(level.members @ crossed).toarray() + level.positions @ by_position**2,
                counts=level.counts,
                prior=prediction[level.parent],
            )
        return by_position[self.position] + prediction[self.levels[-1].of_token]


def _indicator(groups: np.ndarray, n_groups: int) -> sparse.csr_matrix:
    """[group, token]; tokens of group -1 belong nowhere."""
    tokens = np.nonzero(groups >= 0)[0]
    return sparse.csr_matrix(
        (np.ones(len(tokens)), (groups[tokens], tokens)), shape=(n_groups, len(groups))
    )


def _credible(
    *, sums: np.ndarray, squares: np.ndarray, counts: np.ndarray, prior: np.ndarray
) -> np.ndarray:
    """Group means, each moved from the prior by its credibility.

    Args:
        sums: [group, latent] over the group's members.
        squares: likewise, of squares.
        counts: [group, 1] members; may be 0.
        prior: [group, latent] what is believed without the group's own members.
    """
    known = counts[:, 0] > 0
    means = np.divide(sums, counts, out=prior.astype(np.float64), where=counts > 0)
    freedom = max(1.0, float(counts.sum() - known.sum()))
    within = ((squares - sums * means)[known].sum(0) / freedom).clip(min=0)
    excess = (counts * (means - prior) ** 2).sum(0) - known.sum() * within
    between = (excess / max(1.0, float(counts.sum()))).clip(min=0)
    strength = counts * between
    weight = np.divide(strength, strength + within, out=np.zeros_like(means), where=strength > 0)
    return prior + weight * (means - prior)
