"""Learned: would a network that never learned anything give the same latent?"""

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.codes import Codes
from modelassay.evidence.activity import firings_by_document, too_thin
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.matching import Match, best_match, strongest

_SHIFTED = (
    "The same maximum after the other codes were shifted along the tokens (median of five shifts)."
)


def learned(
    codes: Codes,
    twins: Mapping[str, Codes],
    document_of_row: Int[Tensor, " token"],
    *,
    generator: torch.Generator,
) -> tuple[Evidence, ...]:
    """Best match of every latent among dictionaries fitted on null twins, lower being better.

    Args:
        codes: held-out codes of the audited dictionary.
        twins: name of a null twin -> the codes of the dictionary fitted on it, of the same tokens.
        document_of_row: document of each token.
        generator: for the null's shifts and the bootstrap.

    Returns:
        `null_twin_match`, over all twins, and then `null_twin_match:<name>` for each.

    Raises:
        ShapeError: if a twin's codes are of other tokens.
        ValueRangeError: if there are no twins.

    Reference: Heap et al. 2025 (why random networks are the control); the match per latent is ours.
    """
    if not twins:
        raise ValueRangeError("learned needs at least one null twin; got none. Fit one.")
    firings = firings_by_document(codes, document_of_row)
    thin, n = too_thin(firings), firings.sum(0).to(torch.int64)
    matches = [best_match(codes, other, document_of_row, generator) for other in twins.values()]

    def evidence(name: str, title: str, match: Match) -> Evidence:
        return Evidence(
            name=name,
            title=title,
            scope="latent",
            value=match.correlation.masked_fill(thin, torch.nan),
            low=match.interval.low.masked_fill(thin, torch.nan),
            high=match.interval.high.masked_fill(thin, torch.nan),
            null=match.null.masked_fill(thin, torch.nan),
            null_description=_SHIFTED,
            n=n,
            unit="|correlation|",
            better="lower",
            definition="Largest |Pearson correlation| over held-out tokens between the latent's "
            "values and those of any latent of a dictionary fitted on a null twin (untrained or "
            "permuted weights, same tokens); the interval is of the correlation with that partner; "
            "n counts held-out firings.",
            references=("heap2025",),
        )

    over_all = evidence("null_twin_match", "Best match in null twins", strongest(matches))
    return (
        over_all,
        *(
            evidence(f"null_twin_match:{name}", f"Best match in the null twin {name}", match)
            for name, match in zip(twins, matches, strict=True)
        ),
    )
