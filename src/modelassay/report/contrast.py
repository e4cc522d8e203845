"""The pages of contrasts: which units respond to A and not to B, and what fine-tuning changed."""

from modelassay.core.provenance import Provenance
from modelassay.observe.contrast import REPLICATION_P, Contrast
from modelassay.observe.model_diff import KINDS, ModelChange
from modelassay.report.axes import Axis, number, percent
from modelassay.report.page_ending import footer, provenance_table, references
from modelassay.report.parts import (
    Comparison,
    Definition,
    Definitions,
    Estimate,
    Metric,
    Page,
    Paragraph,
    Part,
    Section,
    Table,
)
from modelassay.report.report import Report

_DRAWN = 20  # units whose intervals are drawn (ours)
_LISTED = 200  # rows of a table (ours)
REFERENCES = ("benjamini1995", "hanley1982", "delong1988", "phipson2010", "minder2025")
_MEANINGS = {
    "appeared": "active, where the base model hardly was",
    "vanished": "hardly active, where the base model was",
    "stronger": "responds more",
    "weaker": "responds less",
    "unchanged": "no change was discovered",
    "silent": "active in neither model",
}


def contrast_report(
    found: Contrast, names: tuple[str, ...], sides: tuple[str, str], provenance: Provenance,
    *, subject: str, site: str,
) -> Report:  # fmt: skip
    """The page of a contrast of `sides` A and B."""
    a, b = sides
    sections = (
        Section(anchor="contrast", title="Contrast", parts=contrast_parts(found, names, sides)),
        Section(anchor="methods", title="Methods", parts=_methods(provenance)),
    )
    return Report(
        Page(
            title=f"{a} against {b}",
            subtitle=f"{len(names):,} units of {subject} at {site}",
            sections=sections,
            footer=footer(provenance, f"{subject} · {site} · {a} against {b}"),
        )
    )


def change_report(
    change: ModelChange, names: tuple[str, ...], provenance: Provenance,
    *, base: str, tuned: str, site: str, raised: Contrast | None = None,
    sides: tuple[str, str] = ("chosen", "others"),
) -> Report:  # fmt: skip
    """The page of a comparison of two models; `raised` says what grew for chosen prompts."""
    sections = [Section(anchor="models", title="What changed", parts=change_parts(change, names))]
    if raised is not None:
        parts = contrast_parts(raised, names, sides)
        sections.append(Section(anchor="raised", title="Raised responses", parts=parts))
    sections.append(Section(anchor="methods", title="Methods", parts=_methods(provenance)))
    return Report(
        Page(
            title=f"{tuned} against {base}",
            subtitle=f"{len(names):,} units at {site} on {change.n_documents:,} documents",
            sections=tuple(sections),
            footer=footer(provenance, f"{base} · {tuned} · {site}"),
        )
    )


def contrast_headline(found: Contrast, sides: tuple[str, str]) -> str:
    """The outcome in a line."""
    return " ".join([_discovered(found, sides), *_replicated(found)])


def _discovered(found: Contrast, sides: tuple[str, str]) -> str:
    n, a, b = len(found.discovered), *sides
    tell = f"{n:,} of {len(found.q_value):,} units tell" if n else "No unit tells"
    return f"{tell} {a} from {b} at a false discovery rate of {percent(found.fdr)}."


def _replicated(found: Contrast) -> list[str]:
    if not len(found.discovered):
        return []
    share, low, high = found.replication_share
    sign, sign_low, sign_high = found.sign_share
    return [
        f"{percent(share)} [{percent(low)}, {percent(high)}] of them replicate on documents that "
        f"chose nothing (chance: {percent(REPLICATION_P)}), {percent(sign)} [{percent(sign_low)}, "
        f"{percent(sign_high)}] with the same sign (chance: 50%)."
    ]


def contrast_parts(
    found: Contrast, names: tuple[str, ...], sides: tuple[str, str]
) -> tuple[Part, ...]:
    """A contrast's headline, the largest differences, and all discoveries."""
    headline = Paragraph(role="headline", text=_discovered(found, sides))
    if not len(found.discovered):
        return (headline,)
    again = tuple(Paragraph(text=text) for text in _replicated(found))
    return headline, *again, _comparison(found, names, sides), _discoveries(found, names, sides)


def change_headline(change: ModelChange) -> str:
    """The outcome in a sentence."""
    kinds = change.kinds
    counts = ", ".join(f"{kinds.count(kind):,} {kind}" for kind in KINDS if kinds.count(kind))
    return f"Of {len(kinds):,} units at a false discovery rate of {percent(change.fdr)}: {counts}."


def change_parts(change: ModelChange, names: tuple[str, ...]) -> tuple[Part, ...]:
    """A comparison's headline, counts, and all units that changed."""
    kinds = change.kinds
    counts = Table(
        title="What became of the units",
        columns=("kind", "units", "meaning"),
        rows=tuple((kind, f"{kinds.count(kind):,}", _MEANINGS[kind]) for kind in KINDS),
        caption="A feature that appeared in one dictionary's eyes may still be in the base model: "
        "match the dictionaries and scale the latents before calling it new.",
    )
    order = [int(u) for kind in KINDS[:4] for u in change.of_kind(kind)]
    rows = tuple(
        (
            names[u], kinds[u], percent(float(change.base_rates[u])),
            percent(float(change.tuned_rates[u])),
            interval(float(change.change[u]), float(change.low[u]), float(change.high[u])),
            number(float(change.effect[u])), number(float(change.q_value[u])),
        )
        for u in order[:_LISTED]
    )  # fmt: skip
    changed = Table(
        title="Units that changed",
        columns=("unit", "kind", "base rate", "tuned rate", "change of mean", "effect (SD)", "q"),
        rows=rows,
        caption=f"{len(rows)} of {len(order)}, by kind and size. Effect: the change in standard "
        "deviations of the documents' changes; its null is 0. Intervals are 95 %, over documents.",
    )
    headline = Paragraph(role="headline", text=change_headline(change))
    return (headline, counts, changed) if rows else (headline, counts)


def interval(value: float, low: float, high: float) -> str:
    """A value with its interval."""
    return f"{number(value)} [{number(low)}, {number(high)}]"


def _comparison(found: Contrast, names: tuple[str, ...], sides: tuple[str, str]) -> Comparison:
    metrics = tuple(
        Metric(
            title=names[u],
            unit="AUROC",
            better="neither",
            definition=f"Chance that a random item of {sides[0]} has the larger mean response.",
            null_description="labels permuted by document: 0.5",
            n=sum(found.n_replication),
            estimates=tuple(
                Estimate(
                    value=float(half.auroc[u]), low=float(half.low[u]),
                    high=float(half.high[u]), null=0.5,
                )
                for half in (found.replication, found.discovery)
            ),
            axis=Axis(low=0.0, high=1.0),
        )
        for u in found.discovered[:_DRAWN].tolist()
    )  # fmt: skip
    return Comparison(
        title="The largest differences",
        columns=("replication half", "discovery half"),
        metrics=metrics,
        caption=f"Above 0.5: more for {sides[0]}. The discovery half chose the units, so that its "
        "numbers flatter; read the other.",
    )


def _discoveries(found: Contrast, names: tuple[str, ...], sides: tuple[str, str]) -> Table:
    again = found.replication
    rows = tuple(
        (
            names[u], sides[0] if found.discovery.auroc[u] > 0.5 else sides[1],
            "yes" if found.replicated[u] else "no",
            interval(float(again.auroc[u]), float(again.low[u]), float(again.high[u])),
            number(float(again.difference[u])), number(float(again.rate[u])),
            number(float(found.q_value[u])), number(float(found.replication_p[u])),
        )
        for u in found.discovered[:_LISTED].tolist()
    )  # fmt: skip
    return Table(
        title="Discoveries",
        columns=(
            "unit",
            "responds to",
            "replicates",
            "AUROC",
            "difference (SD)",
            "rate difference",
            "q (discovery)",
            "p (replication)",
        ),
        rows=rows,
        caption=f"{len(rows)} of {len(found.discovered)}. Effect sizes are those of the "
        "replication half; under the null AUROC is 0.5 and the differences 0.",
    )


def _methods(provenance: Provenance) -> tuple[Part, ...]:
    return _definitions(), provenance_table(provenance), references(REFERENCES)


def _definitions() -> Definitions:
    return Definitions(
        title="How it was measured",
        entries=(
            Definition(
                term="items",
                text="Documents, or the tokens of one class within a document. A response is the "
                "mean over an item's tokens; tokens of a text are never counted one by one.",
            ),
            Definition(
                term="false discovery rate",
                text="Benjamini and Hochberg, over p-values from labels permuted by document, or "
                "swapped (in a comparison of models: signs flipped) within documents.",
            ),
            Definition(
                term="replication",
                text="Half of the documents discover, the others test each discovery again, "
                "one-sided at 0.05.",
            ),
        ),
    )
