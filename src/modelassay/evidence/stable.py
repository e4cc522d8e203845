"""Stable: does a second seed find the latent again, by what it does and by where it points?"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.codes import Codes
from modelassay.evidence.activity import firings_by_document, too_thin
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.matching import best_match
from modelassay.evidence.surrogate import random_directions

_NULL_DRAWS = 3  # random dictionaries whose median is the null (ours)
_BLOCK = 1024


def stable(
    codes: Codes,
    second_codes: Codes,
    document_of_row: Int[Tensor, " token"],
    *,
    generator: torch.Generator,
) -> Evidence:
    """Best match of every latent's values with a latent of a second seed's dictionary.

    Args:
        codes: held-out codes of the audited dictionary.
        second_codes: codes of the same tokens by the dictionary of the second seed.
        document_of_row: document of each token.
        generator: for the null's shifts and the bootstrap.

    Reference: Paulo & Belrose 2025.
    """
    match = best_match(codes, second_codes, document_of_row, generator)
    firings = firings_by_document(codes, document_of_row)
    thin = too_thin(firings)
    return Evidence(
        name="stable",
        title="Found again with a second seed (values)",
        scope="latent",
        value=match.correlation.masked_fill(thin, torch.nan),
        low=match.interval.low.masked_fill(thin, torch.nan),
        high=match.interval.high.masked_fill(thin, torch.nan),
        null=match.null.masked_fill(thin, torch.nan),
        null_description="The same maximum after the other codes were shifted along the tokens "
        "(median of five shifts).",
        n=firings.sum(0).to(torch.int64),
        unit="|correlation|",
        better="higher",
        definition="Largest |Pearson correlation| over held-out tokens between the latent's values "
        "and those of any latent of a dictionary fitted with another seed; the interval is of the "
        "correlation with that partner; n counts held-out firings.",
        references=("paulo2025",),
    )


def stable_geometry(
    directions: Float[Tensor, "latent d"],
    second_directions: Float[Tensor, "other d"],
    *,
    generator: torch.Generator,
) -> Evidence:
    """Largest |cosine| of every direction with a direction of a second seed's dictionary.

    The null replaces the second dictionary by as many random directions with its second moment, so
    that sharing a subspace alone does not count. Directions are not a sample of documents: the
    interval is the value itself.

    Reference: Paulo & Belrose 2025.
    """
    mine = torch.nn.functional.normalize(directions.detach().float().cpu(), dim=1)
    theirs = torch.nn.functional.normalize(second_directions.detach().float().cpu(), dim=1)
    second_moment = theirs.T @ theirs / len(theirs)
    nulls = [
        _largest_cosine(mine, random_directions(len(theirs), second_moment, generator))
        for _ in range(_NULL_DRAWS)
    ]
    value = _largest_cosine(mine, theirs)
    return Evidence(
        name="stable_geometry",
        title="Found again with a second seed (directions)",
        scope="latent",
        value=value,
        low=value,
        high=value,
        null=torch.stack(nulls).median(0).values,
        null_description=f"As many random directions ({len(theirs)}) with the second moment of the "
        "second dictionary's (median of three draws).",
        n=torch.full((len(mine),), len(theirs)),
        unit="|cosine|",
        better="higher",
        definition="Largest |cosine| between the latent's direction and any direction of a "
        "dictionary fitted with another seed. No sampling, so the interval is the value; n counts "
        "the directions compared with.",
        references=("paulo2025",),
    )


def _largest_cosine(
    mine: Float[Tensor, "latent d"], theirs: Float[Tensor, "other d"]
) -> Float[Tensor, " latent"]:
    return torch.cat([(rows @ theirs.T).abs().max(1).values for rows in mine.split(_BLOCK)])
