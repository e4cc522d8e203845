"""Written: how much of a latent did the network compute, and how much do the tokens give for free?

A latent that the current token, the two before it and the position predict is a look-up table, and
any network, trained or not, can hold it. The rest of its variance had to be computed.
"""

import torch
from jaxtyping import Int
from scipy import sparse
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.evidence.activity import firings_by_document, too_thin
from modelassay.evidence.documents import document_of_row, sum_by_document, tokens_by_document
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import MIN_FIRINGS, document_interval
from modelassay.evidence.lookup import LookupTables

_NULL_LATENTS = 128  # latents whose null is computed; their median stands for all (ours)


def written(
    codes_fit: Codes,
    harvest_fit: Harvest,
    codes_heldout: Codes,
    harvest_heldout: Harvest,
    *,
    generator: torch.Generator,
) -> Evidence:
    """Share of each latent's variance that tokens and position do not predict.

    `1 - R²` on held-out documents of `LookupTables` fitted on the fit documents. The raw value is
    kept: it exceeds 1 where the tables predict worse than the mean does.

    Args:
        codes_fit: codes of the fit split, one row per row of `harvest_fit`.
        harvest_fit: where those rows stand.
        codes_heldout: codes of the held-out split, one row per row of `harvest_heldout`.
        harvest_heldout: where those rows stand.
        generator: for the bootstrap and the null's permutation.

    Raises:
        ShapeError: if codes and rows do not belong together.
    """
    for codes, harvest in ((codes_fit, harvest_fit), (codes_heldout, harvest_heldout)):
        if codes.n_tokens != len(harvest.rows):
            raise ShapeError(
                f"codes must have one row per harvested token, {len(harvest.rows)}; got "
                f"{codes.n_tokens}. Encode the activations of the same harvest."
            )
    document = document_of_row(harvest_heldout)
    tables = LookupTables.build(_histories(harvest_fit), _histories(harvest_heldout))
    fit, heldout = codes_fit.to_scipy().tocsc(), codes_heldout.to_scipy().tocsc()
    sums = _sums(tables, fit, heldout, document)
    interval = document_interval(sums, _unpredicted, generator)
    value = _unpredicted(*(table.sum(0, keepdim=True) for table in sums))[0].float()
    firings = firings_by_document(codes_heldout, document)
    thin = too_thin(firings) | (codes_fit.firing_counts().cpu() < MIN_FIRINGS)
    null = _null(tables, fit, heldout, document, thin, generator)
    return Evidence(
        name="written",
        title="Computed rather than given by the tokens",
        scope="latent",
        value=value.masked_fill(thin, torch.nan),
        low=interval.low.masked_fill(thin, torch.nan),
        high=interval.high.masked_fill(thin, torch.nan),
        null=torch.full_like(value, null),
        null_description="Codes dealt out to random tokens before the tables are fitted: nothing "
        f"can be predicted (median over up to {_NULL_LATENTS} latents).",
        n=firings.sum(0).to(torch.int64),
        unit="share of variance",
        better="higher",
        definition="1 - R² on held-out documents of predicting the latent by look-up tables of the "
        "position, the current token, the last two and the last three tokens, each shrunk towards "
        "the one before by its credibility, fitted on fit documents. Not clipped: above 1 means "
        "that the tables predict worse than the mean. n counts held-out firings.",
        references=("buhlmann1970",),
    )


def _histories(harvest: Harvest) -> Int[Tensor, "token 4"]:
    """Position, token, the token before, and the one before that (-1 before the context)."""
    context, position = harvest.rows.unbind(1)
    tokens = torch.nn.functional.pad(harvest.contexts.tokens, (2, 0), value=-1)
    return torch.stack([position, *(tokens[context, position + 2 - k] for k in range(3))], dim=1)


def _sums(
    tables: LookupTables,
    fit: sparse.csc_matrix,
    heldout: sparse.csc_matrix,
    document: Int[Tensor, " token"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per document: squared errors, squares and sums of every latent, and the number of tokens."""
    errors = torch.cat(
        [
            sum_by_document(torch.from_numpy(error).square_(), document)
            for error in tables.errors(fit, heldout)
        ],
        dim=1,
    )
    squares = sum_by_document(heldout.multiply(heldout), document)
    return errors, squares, sum_by_document(heldout, document), tokens_by_document(document)


def _unpredicted(errors: Tensor, squares: Tensor, sums: Tensor, n_tokens: Tensor) -> Tensor:
    return errors / (squares - sums.square() / n_tokens)


def _null(
    tables: LookupTables,
    fit: sparse.csc_matrix,
    heldout: sparse.csc_matrix,
    document: Int[Tensor, " token"],
    thin: Tensor,
    generator: torch.Generator,
) -> float:
    candidates = (~thin).nonzero()[:, 0]
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:_NULL_LATENTS]]
    if len(chosen) == 0:
        return float("nan")
    order = torch.randperm(fit.shape[0], generator=generator).numpy()
    shuffled, kept = fit[:, chosen.numpy()].tocsr()[order].tocsc(), heldout[:, chosen.numpy()]
    sums = _sums(tables, shuffled, kept, document)
    return float(_unpredicted(*(table.sum(0, keepdim=True) for table in sums)).median())
