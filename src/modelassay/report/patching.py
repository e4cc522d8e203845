"""The page of patching between prompts: heat-maps, estimates beside it, and paths of mediation."""

from collections.abc import Sequence

from modelassay.core.provenance import Provenance
from modelassay.observe.attribution_patching import Completeness, agreement
from modelassay.observe.mediation import Mediation
from modelassay.observe.patching import Effects
from modelassay.report.axes import number, percent
from modelassay.report.intervention_parts import EffectMap
from modelassay.report.measured import measured as shown
from modelassay.report.page_ending import footer, provenance_table, references
from modelassay.report.parts import (
    Definition,
    Definitions,
    Page,
    Paragraph,
    Part,
    Section,
    Table,
)
from modelassay.report.report import Report

REFERENCES = (
    "vig2020", "meng2022", "wang2022", "goldowsky2023", "heimersheim2024", "nanda2023attribution",
    "syed2023", "kramar2024", "sundararajan2017", "hanna2024", "pearl2001",
)  # fmt: skip
_WHAT = {
    "denoising": "Parts of the clean run are put into the corrupt one: what suffices.",
    "noising": "Parts of the corrupt run are put into the clean one: what is needed.",
}


def effect_map(effects: Effects, seed: int = 0) -> EffectMap:
    """Effects as a part of a page."""
    ends = effects.intervals(seed)
    total = effects.total(seed)
    return EffectMap(
        title=f"{effects.method[0].upper()}{effects.method[1:]} ({effects.direction})",
        caption=f"{_WHAT[effects.direction]} 1 is the whole difference between the runs, "
        f"{shown(total)} on {len(effects.source)} pairs in {len(effects.groups.unique())} groups. "
        f"{_columns(effects.columns)}Point at a cell for its 95 % interval (bootstrap over groups "
        "of pairs).",
        rows=effects.parts,
        columns=effects.columns,
        shares=effects.shares(),
        low=ends[..., 0],
        high=ends[..., 1],
    )


def _columns(names: Sequence[str]) -> str:
    if names == ("all",):
        return "Every part is carried over at all positions together. "
    if names[0] == "earlier":
        return "Prompts differ in length, so that positions are counted from the end. "
    starred = any(name.endswith("*") for name in names)
    return "A star marks positions at which the prompts differ. " if starred else ""


def patching_report(
    subject: str,
    measured: Effects,
    provenance: Provenance,
    *,
    measure: str,
    estimates: Sequence[Effects] = (),
    checks: Sequence[Completeness] = (),
    mediations: Sequence[Mediation] = (),
    paths: Effects | None = None,
    left_out: int = 0,
    seed: int = 0,
) -> Report:
    """The page of a patching experiment.

    Args:
        subject: name of the model.
        measured: what patching found.
        provenance: printed at the foot.
        measure: what was measured, in words.
        estimates: of the same cells, by gradients.
        checks: completeness of integrated gradients.
        mediations: of some of the parts.
        paths: effects of the same parts by direct paths alone.
        left_out: pairs that could not be aligned.
        seed: of the intervals.
    """
    first: list[Part] = [_lead(measured, measure, left_out, seed), effect_map(measured, seed)]
    sections = [Section(anchor="patching", title="Patching", parts=tuple(first))]
    if estimates:
        parts: list[Part] = [effect_map(each, seed) for each in estimates]
        parts.append(_agreement(estimates, measured, seed))
        parts += [_completeness(checks)] if checks else []
        sections.append(Section(anchor="estimates", title="Estimates", parts=tuple(parts)))
    if mediations:
        sections.append(
            Section(anchor="mediation", title="Mediation", parts=(_mediation(mediations, seed),))
        )
    if paths is not None:
        sections.append(
            Section(
                anchor="paths", title="Direct paths", parts=(_by_paths(), effect_map(paths, seed))
            )
        )
    methods = (_definitions(), provenance_table(provenance), references(REFERENCES))
    sections.append(Section(anchor="methods", title="Methods", parts=methods))
    page = Page(
        title=f"{subject} · patching",
        subtitle=f"{len(measured.source)} pairs of prompts · {measure}",
        sections=tuple(sections),
        footer=footer(provenance, f"{subject} · {measured.direction}"),
    )
    return Report(page)


def _lead(measured: Effects, measure: str, left_out: int, seed: int) -> Paragraph:
    total = measured.total(seed)
    # With too few groups there is no interval, and then nothing is known of the sign either.
    told_apart = total.low > 0 or total.high < 0
    warning = (
        ""
        if told_apart
        else " That interval does not exclude 0: it is not shown that the model tells these "
        "prompts apart, and the shares below may mean nothing."
    )
    left = f" {left_out} pairs were left out because they could not be aligned." if left_out else ""
    return Paragraph(text=f"{patching_summary(measured, measure, seed)}{warning}{left}")


def patching_summary(effects: Effects, measure: str, seed: int = 0) -> str:
    """What was found, in a line: the difference of the runs, and what carries most of it over."""
    shares = effects.shares()
    row, column = divmod(int(shares.nan_to_num().argmax()), shares.shape[1])
    place = "" if effects.columns[column] == "all" else f" at position {effects.columns[column]}"
    return (
        f"Between the two runs the {measure} differs by {shown(effects.total(seed))} on average; "
        f"{effects.parts[row]}{place} carries {number(float(shares[row, column]))} of that over."
    )


def _by_paths() -> Paragraph:
    return Paragraph(
        text="The same parts, while everything between them and the receiver keeps the values that "
        "it had: what a part does by itself, and not through later layers that react to it."
    )


def _agreement(estimates: Sequence[Effects], measured: Effects, seed: int) -> Table:
    rows: list[tuple[str, ...]] = []
    for estimate in estimates:
        found = agreement(estimate, measured, seed)
        rows.append(
            (estimate.method, shown(found.pearson), shown(found.spearman), str(found.n_cells))
        )
    return Table(
        title="Estimates against patching",
        columns=("method", "Pearson", "Spearman", "cells"),
        rows=tuple(rows),
        caption="Correlations of mean effects over cells with 95 % intervals; cells that are 0 in "
        "both are left out.",
    )


def _completeness(checks: Sequence[Completeness]) -> Table:
    return Table(
        title="Completeness of integrated gradients",
        columns=("site", "nodes", "pairs that add up", "largest gap", "mean |difference|"),
        rows=tuple(
            (
                str(check.site),
                str(check.nodes),
                percent(float(check.complete.float().mean())),
                number(float(check.gap.abs().max())),
                number(float(check.actual.abs().mean())),
            )
            for check in checks
        ),
        caption="The sum of a site's attributions against what carrying the site over does. "
        "Nodes are doubled until every pair adds up, or the limit is reached.",
    )


def _mediation(mediations: Sequence[Mediation], seed: int) -> Table:
    rows: list[tuple[str, ...]] = []
    for each in mediations:
        means = each.means(seed)
        cells = (shown(means[key]) for key in ("total", "indirect", "direct", "mediated"))
        rows.append((", ".join(each.mediators), *cells))
    return Table(
        title="Direct and indirect effects of the corrupt prompts",
        columns=("mediator", "total", "indirect", "direct", "indirect / total"),
        rows=tuple(rows),
        caption="Indirect: only what the mediator sees is changed. Direct: all but that. They need "
        "not sum to the total. 95 % intervals over groups of pairs.",
    )


def _definitions() -> Definitions:
    return Definitions(
        title="What the words mean",
        entries=(
            Definition(
                term="effect",
                text="The measure in the changed run, less that in the run that is changed.",
            ),
            Definition(
                term="share",
                text="The sum of effects over pairs, over the sum of differences between the runs. "
                "Shares of several parts need not sum to 1: parts can stand in for each other.",
            ),
            Definition(
                term="logit difference",
                text="The log-odds of the answers against the wrong ones; for single tokens the "
                "difference of their logits.",
            ),
            Definition(
                term="intervals",
                text="95 % bootstraps over groups of pairs of the same prompts; with fewer than "
                "five groups there are none.",
            ),
        ),
    )
