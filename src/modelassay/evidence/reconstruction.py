"""How much of the activations a decomposition keeps, and how sparsely."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.activity import code_statistics
from modelassay.evidence.documents import tokens_by_document
from modelassay.evidence.evidence import Evidence, single
from modelassay.evidence.intervals import document_interval
from modelassay.evidence.surrogate import gaussian_surrogate

_ROWS = 16_384  # tokens at a time in float64


def explained_variance(x: Float[Tensor, "token d"], x_hat: Float[Tensor, "row width"]) -> float:
    """Share of the activations' variance that the reconstruction keeps.

    `1 - sum_t |x_t - x̂_t|^2 / sum_t |x_t - mean(x)|^2`: 1 is perfect, 0 is no better than the
    mean, and it can be negative. A common shift or scale of both changes nothing.

    Raises:
        ShapeError: if the two differ in shape.
        TooFewTokensError: if the variance is 0, as for a single token.
    """
    document = torch.zeros(len(x), dtype=torch.int64)
    return float(_explained(*_sums(x, x_hat, document)))


def explained_variance_evidence(
    x: Float[Tensor, "token d"],
    x_hat: Float[Tensor, "row width"],
    document_of_row: Int[Tensor, " token"],
    generator: torch.Generator,
    *,
    null: float = 0.0,
    null_description: str = "Every activation predicted by the mean (0 by definition).",
) -> Evidence:
    """`explained_variance` with its interval over documents.

    Reference: the definition is Gao et al. 2024's fraction of variance unexplained, taken from 1,
    with the mean per dimension; SAEBench 0.6's version is not invariant under a shift.
    """
    tables = _sums(x, x_hat, document_of_row)
    interval = document_interval(tables, _explained, generator)
    return Evidence(
        name="explained_variance",
        title="Explained variance",
        scope="decomposition",
        value=single(float(_explained(*(table.sum(0, keepdim=True) for table in tables)))),
        low=interval.low,
        high=interval.high,
        null=single(null),
        null_description=null_description,
        n=torch.tensor([len(x)]),
        unit="share",
        better="higher",
        definition="1 - sum |x - x̂|² / sum |x - mean|², over held-out tokens and all dimensions, "
        "with the mean over the same tokens; n counts tokens.",
        references=("gao2024", "karvonen2025"),
    )


def reconstruction(
    decomposition: Decomposition,
    x: Float[Tensor, "token d"],
    document_of_row: Int[Tensor, " token"],
    generator: torch.Generator,
) -> tuple[Evidence, ...]:
    """Explained variance, L0, dead share and dense share on held-out activations.

    The null of each is the same decomposition on Gaussian noise of the same mean and covariance.
    """
    codes = decomposition.encode(x)
    surrogate = gaussian_surrogate(x, generator)
    surrogate_codes = decomposition.encode(surrogate)
    null = explained_variance(surrogate, decomposition.decode(surrogate_codes))
    explained = explained_variance_evidence(
        x,
        decomposition.decode(codes),
        document_of_row,
        generator,
        null=null,
        null_description="The same decomposition on Gaussian noise with the activations' mean and "
        "covariance.",
    )
    return (explained, *code_statistics(codes, surrogate_codes, document_of_row, generator))


def _sums(
    x: Float[Tensor, "token d"],
    x_hat: Float[Tensor, "row width"],
    document: Int[Tensor, " token"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per document: squared error, squared norm, sum, and number of tokens."""
    if x.shape != x_hat.shape:
        raise ShapeError(
            f"x_hat must have the shape of x, {tuple(x.shape)}; got {tuple(x_hat.shape)}. "
            "Decode the codes of the same tokens."
        )
    n_documents = int(document.max()) + 1
    # Squares are taken about a fixed origin near the data, so that an offset costs no digits.
    origin = x[:_ROWS].double().mean(0)
    error = torch.zeros(n_documents, 1, dtype=torch.float64)
    squares = torch.zeros_like(error)
    total = torch.zeros(n_documents, x.shape[1], dtype=torch.float64)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        centred = x[rows].double() - origin
        residual = x[rows].double() - x_hat[rows].double()
        error.index_add_(0, document[rows], residual.square().sum(1, keepdim=True))
        squares.index_add_(0, document[rows], centred.square().sum(1, keepdim=True))
        total.index_add_(0, document[rows], centred)
    variance = squares.sum() - total.sum(0).square().sum() / len(x)
    if variance <= 0:
        raise TooFewTokensError(
            f"Explained variance needs activations that vary; got {len(x)} tokens with variance "
            f"{float(variance):.3g}. Add text to the corpus."
        )
    return error, squares, total, tokens_by_document(document)


def _explained(error: Tensor, squares: Tensor, total: Tensor, n_tokens: Tensor) -> Tensor:
    variance = squares - total.square().sum(1, keepdim=True) / n_tokens
    return 1 - error / variance
