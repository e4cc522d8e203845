"""Which latent of another dictionary does the same on the same tokens?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.evidence.documents import sum_by_document, tokens_by_document
from modelassay.evidence.intervals import MIN_FIRINGS, Interval, document_interval

_BLOCK = 1024  # latents at a time: bounds the dense block of correlations
_SHIFTS = 5  # circular shifts whose median is the null (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Each latent's best match in another dictionary."""

    correlation: Float[Tensor, " latent"]
    """Largest |Pearson correlation| of values over the tokens; NaN for a constant latent."""
    partner: Int[Tensor, " latent"]
    """The other dictionary's latent that reaches it."""
    null: Float[Tensor, " latent"]
    """The same maximum after the other codes were shifted along the tokens."""
    interval: Interval
    """Of the correlation with that partner."""


def best_match(
    codes: Codes, other: Codes, document_of_row: Int[Tensor, " token"], generator: torch.Generator
) -> Match:
    """Best |Pearson correlation| of every latent's values with any latent of another dictionary.

    A latent of the other dictionary that fires on fewer than `MIN_FIRINGS` tokens is no partner: on
    so few tokens a high correlation is chance. The null shifts the other codes circularly along the
    tokens: what remains is the maximum that chance reaches among as many latents that fire as often
    and as clustered.

    Raises:
        ShapeError: if the two were not computed on the same number of tokens.
    """
    if codes.n_tokens != other.n_tokens:
        raise ShapeError(
            f"Both codes must be of the same tokens; got {codes.n_tokens} and {other.n_tokens}. "
            "Encode the same held-out tokens with both dictionaries."
        )
    mine, theirs = codes.to_scipy().astype(np.float64), other.to_scipy().astype(np.float64)
    correlation, partner = _largest_correlation(mine, theirs)
    nulls = []
    for _ in range(_SHIFTS):
        # At least a tenth of the data away, so that no shifted token meets its own context.
        share = 0.1 + 0.8 * float(torch.rand((), generator=generator))
        order = np.roll(np.arange(theirs.shape[0]), int(share * theirs.shape[0]))
        nulls.append(_largest_correlation(mine, theirs[order])[0])
    return Match(
        correlation=correlation,
        partner=partner,
        null=torch.stack(nulls).median(0).values,
        interval=_interval(mine, theirs[:, partner.numpy()], document_of_row, generator),
    )


def _largest_correlation(
    mine: sparse.csr_matrix, theirs: sparse.csr_matrix
) -> tuple[Float[Tensor, " latent"], Int[Tensor, " latent"]]:
    n_tokens = mine.shape[0]
    my_mean, my_deviation = _moments(mine)
    their_mean, their_deviation = _moments(theirs)
    rare = np.bincount(theirs.indices, minlength=theirs.shape[1]) < MIN_FIRINGS
    their_deviation[rare] = np.inf  # a correlation of 0 with everything
    best, partners = [], []
    columns = mine.tocsc()
    for start in range(0, mine.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        products = (columns[:, block].T @ theirs).toarray() / n_tokens
        products -= np.outer(my_mean[block], their_mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            products /= their_deviation
            products /= my_deviation[block, None]
        sizes = torch.from_numpy(np.abs(products))
        largest = sizes.max(1)  # a constant latent's 0/0 stays NaN
        best.append(largest.values)
        partners.append(largest.indices)
    return torch.cat(best).float(), torch.cat(partners)


def _moments(matrix: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    mean = np.asarray(matrix.mean(0)).ravel()
    square = np.asarray(matrix.multiply(matrix).mean(0)).ravel()
    return mean, np.sqrt((square - mean**2).clip(min=0))


def _interval(
    mine: sparse.csr_matrix,
    partners: sparse.csr_matrix,
    document: Int[Tensor, " token"],
    generator: torch.Generator,
) -> Interval:
    tables = (
        sum_by_document(mine.multiply(partners), document),
        sum_by_document(mine, document),
        sum_by_document(partners, document),
        sum_by_document(mine.multiply(mine), document),
        sum_by_document(partners.multiply(partners), document),
        tokens_by_document(document),
    )
    return document_interval(tables, _correlation, generator)


def _correlation(
    products: Tensor, mine: Tensor, theirs: Tensor, my_squares: Tensor, their_squares: Tensor,
    n_tokens: Tensor,
) -> Tensor:  # fmt: skip
    covariance = products - mine * theirs / n_tokens
    my_variance = my_squares - mine.square() / n_tokens
    their_variance = their_squares - theirs.square() / n_tokens
    return (covariance / (my_variance * their_variance).sqrt()).abs()


def strongest(matches: Sequence[Match]) -> Match:
    """Of several dictionaries' matches, the best for each latent, with the largest of the nulls."""
    correlations = torch.stack([match.correlation for match in matches])
    winner = correlations.nan_to_num(nan=-1).argmax(0)[None]

    def of_winner(values: list[Tensor]) -> Tensor:
        return torch.stack(values).gather(0, winner)[0]

    return Match(
        correlation=of_winner([match.correlation for match in matches]),
        partner=of_winner([match.partner for match in matches]),
        null=torch.stack([match.null for match in matches]).max(0).values,
        interval=Interval(
            low=of_winner([match.interval.low for match in matches]),
            high=of_winner([match.interval.high for match in matches]),
        ),
    )
