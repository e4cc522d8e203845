"""The page of units over a harvest: statistics, and examples of where they are active and silent.

It is the explorer of the audit's report without questions and verdicts.
"""

import numpy as np
import torch
from jaxtyping import Float

from modelassay.audit.parts import LatentDetails
from modelassay.core.provenance import Provenance
from modelassay.observe.exemplars.search import Found
from modelassay.report.axes import axis_over, number, percent
from modelassay.report.page_ending import footer, provenance_table, references
from modelassay.report.parts import (
    Catalogue,
    Definition,
    Definitions,
    EvidenceColumn,
    Page,
    Section,
    ShareClass,
    Table,
)
from modelassay.report.report import Report

REFERENCES = ("bolukbasi2021", "bricken2023")
_PAIRS = 30  # rows of the table of pairs (ours)
_RARE = 0.001  # of the tokens: a unit that is active on fewer is called rare (ours)
# The keys name colours of the page.
CLASSES = (
    ShareClass(key="activations", title="common"),
    ShareClass(key="undetermined", title="rare"),
    ShareClass(key="dead", title="silent"),
)


def examples_report(
    found: Found,
    names: tuple[str, ...],
    vocabulary: tuple[str, ...],
    provenance: Provenance,
    *,
    subject: str,
    site: str,
    what: str,
) -> Report:
    """The page of some units.

    Args:
        found: their examples and statistics.
        names: of the units.
        vocabulary: text of each token.
        provenance: printed at the end.
        subject: name of the model.
        site: where the units read.
        what: the units in a few words, for the title.
    """
    sections = [
        Section(anchor="units", title="Units", parts=(_catalogue(found, names, vocabulary),))
    ]
    if found.statistics.together is not None:
        sections.append(Section(anchor="pairs", title="Pairs", parts=(_pairs(found, names),)))
    methods = (_definitions(), provenance_table(provenance), references(REFERENCES))
    sections.append(Section(anchor="methods", title="Methods", parts=methods))
    return Report(
        Page(
            title=f"{what} · {subject} · {site}",
            subtitle=f"{len(names):,} units over {found.statistics.n_tokens:,} tokens",
            sections=tuple(sections),
            footer=footer(provenance, f"{subject} · {site}"),
        )
    )


def _catalogue(found: Found, names: tuple[str, ...], vocabulary: tuple[str, ...]) -> Catalogue:
    statistics = found.statistics
    n = statistics.active
    sketch = statistics.sketch
    mean = (statistics.total / n).float()
    columns = (
        _column("rate", "Share of tokens on which it is active", statistics.rates.float(), n),
        _column("median", "Median of its active values", sketch.quantile(0.5), n),
        _column("largest", "Largest value", _finite(statistics.highest), n),
        _column("mean", "Mean of its active values", mean, n),
        _column("lower tenth", "Tenth percentile of its active values", sketch.quantile(0.1), n),
        _column("upper tenth", "90th percentile of its active values", sketch.quantile(0.9), n),
    )
    histogram = statistics.histogram()
    none = torch.zeros(len(names), 0)
    return Catalogue(
        title="Units",
        classes=CLASSES,
        questions=(),
        verdicts=tuple(_class(float(rate)) for rate in statistics.rates),
        reasons=names,
        answers={},
        columns=columns,
        details=LatentDetails(
            examples=found.examples,
            histogram_counts=histogram.counts,
            histogram_edges=histogram.edges,
            promoted=none.long(),
            promoted_logits=none,
            suppressed=none.long(),
            suppressed_logits=none,
            neighbours=none.long(),
            neighbour_cosines=none,
            neighbour_null=float("nan"),
            concepts=None,
        ),
        vocabulary=vocabulary,
        caption=f"All {len(names):,} units over {statistics.n_tokens:,} tokens. Quantiles are "
        f"exact up to {sketch.relative_error:.1%} of their value. Silent tokens among the examples "
        "say where a unit stops.",
    )


def _pairs(found: Found, names: tuple[str, ...]) -> Table:
    statistics = found.statistics
    pairs, correlations = statistics.correlated_pairs(_PAIRS)
    together = statistics.together
    assert together is not None
    rows: list[tuple[str, ...]] = []
    for (first, second), phi in zip(pairs.tolist(), correlations.tolist(), strict=True):
        if phi <= 0:
            break
        both = int(together[min(first, second), max(first, second)])
        rates = (percent(float(statistics.rates[unit])) for unit in (first, second))
        rows.append((names[first], names[second], number(phi), f"{both:,}", *rates))
    return Table(
        title="Units that are active together",
        columns=("unit", "and", "phi", "tokens with both", "active on", "and on"),
        rows=tuple(rows),
        caption="phi is the correlation of being active: 0 for units that are independent of each "
        "other. The strongest pairs; the JSON has more.",
    )


def _class(rate: float) -> str:
    return "dead" if rate == 0 else "undetermined" if rate < _RARE else "activations"


def _finite(values: torch.Tensor) -> torch.Tensor:
    return values.where(values.isfinite(), torch.nan)


def _column(
    name: str, title: str, value: Float[torch.Tensor, " unit"], n: torch.Tensor
) -> EvidenceColumn:
    numbers = value.float().numpy()
    nothing = np.full_like(numbers, np.nan)
    return EvidenceColumn(
        name=name,
        title=title,
        unit="share" if name == "rate" else "",
        better="neither",
        null_description="",
        definition=title,
        threshold=None,
        axis=axis_over(numbers),
        value=numbers,
        low=nothing,
        high=nothing,
        null=nothing,
        p_value=None,
        q_value=None,
        n=n.numpy(),
    )


def _definitions() -> Definitions:
    return Definitions(
        title="What the examples are",
        entries=(
            Definition(
                term="strongest and quantile groups",
                text="The largest values, and random ones from each part of the active values by "
                "rank. The strongest alone mislead: most of a unit's activity lies elsewhere.",
            ),
            Definition(
                term="silent: random",
                text="Tokens drawn at random among those on which the unit is silent.",
            ),
            Definition(
                term="silent: nearest",
                text="Silent tokens whose activations have the largest cosine with what the unit "
                "is read with: just below its threshold, or beaten by other units.",
            ),
            Definition(
                term="silent: the same tokens elsewhere",
                text="The tokens of the strongest examples in contexts where the unit is silent. "
                "Where there are none, the unit may follow the token alone.",
            ),
            Definition(
                term="one context, one example",
                text="No two examples of a unit stand in one context: no passage fills the panel.",
            ),
        ),
    )
