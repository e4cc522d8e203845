"""The page of patching between prompts: heat-maps, estimates beside it, and paths of mediation."""

from collections.abc import Sequence

from modelassay.core.provenance import Provenance
from modelassay.observe.attribution_patching import Completeness, agreement
from modelassay.observe.mediation import Mediation
from modelassay.observe.patching import Effects
from modelassay.report.axes import number, percent
from modelassay.report.intervention_parts import EffectMap
from modelassay.report.parts import Page, Paragraph, Part, Section, Table
from modelassay.report.report import Report

_WHAT = {
    "denoising": "parts of the clean run are put into the corrupt one: what suffices",
    "noising": "parts of the corrupt run are put into the clean one: what is needed",
}


def effect_map(effects: Effects, seed: int = 0) -> EffectMap:
    """Effects as a part of a page."""
    ends = effects.intervals(seed)
    total = effects.total(seed)
    return EffectMap(
        title=f"{effects.method[0].upper()}{effects.method[1:]} ({effects.direction})",
        caption=f"{_WHAT[effects.direction]}. 1 is the whole difference between the runs, "
        f"{total} on {len(effects.source)} pairs in {len(effects.groups.unique())} groups. "
        "A star marks positions at which the prompts differ. Point at a cell for its 95 % "
        "interval (bootstrap over groups of pairs).",
        rows=effects.parts,
        columns=effects.columns,
        shares=effects.shares(),
        low=ends[..., 0],
        high=ends[..., 1],
    )


def patching_report(
    subject: str,
    measured: Effects,
    provenance: Provenance,
    *,
    measure: str,
    estimates: Sequence[Effects] = (),
    checks: Sequence[Completeness] = (),
    mediations: Sequence[Mediation] = (),
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
    versions = provenance.versions
    page = Page(
        title=f"{subject} · patching",
        subtitle=f"{len(measured.source)} pairs of prompts · {measure}",
        sections=tuple(sections),
        footer=f"modelassay {versions.get('modelassay', '')} · {subject} · {measured.direction} · "
        f"seed {provenance.seed} · {provenance.created}",
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
    return Paragraph(
        text=f"Between the two runs the {measure} differs by {total} on average.{warning}{left}"
    )


def _agreement(estimates: Sequence[Effects], measured: Effects, seed: int) -> Table:
    rows: list[tuple[str, ...]] = []
    for estimate in estimates:
        found = agreement(estimate, measured, seed)
        rows.append((estimate.method, str(found.pearson), str(found.spearman), str(found.n_cells)))
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
        shown = (str(means[key]) for key in ("total", "indirect", "direct", "mediated"))
        rows.append((", ".join(each.mediators), *shown))
    return Table(
        title="Direct and indirect effects of the corrupt prompts",
        columns=("mediator", "total", "indirect", "direct", "indirect / total"),
        rows=tuple(rows),
        caption="Indirect: only what the mediator sees is changed. Direct: all but that. They need "
        "not sum to the total. 95 % intervals over groups of pairs.",
    )
