"""The page of a probing study: what is encoded, what is used, and every control."""

import math
from collections.abc import Callable

from modelassay.core.provenance import Provenance
from modelassay.observe.probes.causal import CausalEffect
from modelassay.observe.probes.report import COLUMNS, ProbeReport, row_of, shown
from modelassay.observe.probes.scores import Measured, Scores
from modelassay.report.axes import Axis, number
from modelassay.report.degrade import or_broken
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

Reports = tuple[ProbeReport, ...]
REFERENCES = (
    "alain2016", "hewitt2019", "voita2020", "marks2023", "burns2022", "gurnee2023",
    "belrose2023leace",
)  # fmt: skip


def probes_report(reports: Reports, provenance: Provenance) -> Report:
    """The page of probes of one concept in one model."""
    plan: tuple[tuple[str, str, tuple[Callable[[], Part], ...]], ...] = (
        ("overview", "Encoded and used", (lambda: _headline(reports), lambda: _overview(reports))),
        ("controls", "Controls", (lambda: _comparison(reports), lambda: _scores(reports))),
        ("behaviour", "Behaviour", (lambda: _causal(reports),)),
        ("codes", "Description length", (lambda: _codes(reports),)),
        (
            "methods",
            "Methods",
            (
                _definitions,
                lambda: _missing(reports),
                lambda: provenance_table(provenance),
                lambda: references(REFERENCES),
            ),
        ),
    )
    sections = tuple(
        Section(anchor=anchor, title=title, parts=tuple(or_broken(title, make) for make in makers))
        for anchor, title, makers in plan
    )
    first = reports[0]
    return Report(
        Page(
            title=f"{first.concept} · {first.subject}",
            subtitle=f"{first.method} probes at {len(reports)} sites",
            sections=sections,
            footer=footer(provenance, f"{first.subject} · {first.concept}"),
        )
    )


def _headline(reports: Reports) -> Paragraph:
    encoded = sum(report.encoded == "yes" for report in reports)
    text = f"At {encoded} of {len(reports)} sites the label can be decoded beyond every control"
    tested = [report for report in reports if report.used != "not tested"]
    if tested and all(report.used == "no behaviour" for report in tested):
        text += "; the model's behaviour does not depend on it, so that no use can be tested"
    elif tested:
        used = sum(report.used in ("yes", "partly") for report in tested)
        text += f"; at {used} of {len(tested)} behaviour follows its direction, at least in part"
    else:
        text += "; whether the model uses it was not tested"
    return Paragraph(role="headline", text=f"{text}.")


def _overview(reports: Reports) -> Table:
    first = reports[0]
    balance = ", ".join(
        f"{name} {share:.0%}"
        for name, share in zip(first.classes, first.balance.tolist(), strict=True)
    )
    return Table(
        title="Sites",
        columns=COLUMNS,
        rows=tuple(row_of(report) for report in reports),
        caption=f"{first.n_train} training items in {first.n_train_groups} groups, {first.n_test} "
        f"test items in {first.n_test_groups} others ({balance}). Intervals are 95 %, over groups. "
        "Encoded is a statement about the activations, used one about the model; neither implies "
        "the other.",
    )


def _comparison(reports: Reports) -> Comparison:
    names = tuple(dict.fromkeys(b.name for report in reports for b in report.baselines))
    ends = [
        end
        for report in reports
        for each in (report.scores, *(b.scores for b in report.baselines))
        for end in (each.accuracy.value, each.accuracy.low, each.accuracy.high)
        if not math.isnan(end)
    ]
    axis = Axis(low=min(0.4, *ends), high=1.0)
    return Comparison(
        title="Accuracy on unseen groups",
        columns=("probe", *names),
        metrics=tuple(_metric(report, names, axis) for report in reports),
        caption="The tick marks the shares of the training items' commonest class. A probe shows "
        "something about the model only where it leads over what knows less: the token, the tokens "
        "read so far, the embedding, a model with weights drawn anew.",
    )


def _metric(report: ProbeReport, names: tuple[str, ...], axis: Axis) -> Metric:
    majority = report.baseline("majority")
    null = math.nan if majority is None else majority.scores.accuracy.value
    found = [report.baseline(name) for name in names]
    return Metric(
        title=report.site,
        unit="share of items",
        better="higher",
        definition="Share of test items whose likeliest class is their own.",
        null_description="the commonest class of the training items",
        n=report.n_test,
        estimates=(
            _estimate(report.scores, null),
            *(None if each is None else _estimate(each.scores, null) for each in found),
        ),
        axis=axis,
    )


def _estimate(scores: Scores, null: float) -> Estimate:
    measured = scores.accuracy
    return Estimate(value=measured.value, low=measured.low, high=measured.high, null=null)


def _scores(reports: Reports) -> Table:
    rows: list[tuple[str, ...]] = []
    for report in reports:
        rows.append(_score_row(report.site, "probe", report.scores, None))
        rows += [_score_row(report.site, b.name, b.scores, b.lead) for b in report.baselines]
        if report.erased is not None:
            rows.append(_score_row(report.site, "after erasure (LEACE)", report.erased, None))
    return Table(
        title="All scores",
        columns=("site", "what", "accuracy", "lead of the probe", "AUROC", "F1", "AP", "ECE"),
        rows=tuple(rows),
        caption="The lead is the difference of accuracies, resampled together. After erasure a "
        "linear probe of the training items is a constant; what is left here is what the erasure "
        "did not carry over to unseen groups.",
    )


def _score_row(site: str, name: str, scores: Scores, lead: Measured | None) -> tuple[str, ...]:
    return (
        site,
        name,
        shown(scores.accuracy),
        "–" if lead is None else shown(lead),
        shown(scores.auroc),
        *(number(part.value, 3) for part in (scores.f1, scores.average_precision, scores.ece)),
    )


def _causal(reports: Reports) -> Part:
    tested = [report.causal for report in reports if report.causal is not None]
    if not tested:
        return Paragraph(
            text="Not tested: give the items two continuations, one for each class, to see whether "
            "the model's preference follows the direction."
        )
    rows = tuple(
        (test.site, shown(test.separation), effect.name, *_effect(effect))
        for test in tested
        for effect in test.effects
    )
    return Table(
        title="Causal tests of the direction",
        columns=("site", "separation (nats)", "change", "effect", "random, largest", "p"),
        rows=rows,
        caption="Separation: mean log-odds of class 1's continuation in class 1 less that in class "
        "0. Effects are shares of it: push moves items along the direction to where the other "
        "class lies (1: the preference moves as far as the classes lie apart), ablate and erase "
        "take the difference away (1: nothing of the preference is left). Random: directions and "
        "steps of equal size, or the erasure of shuffled labels. Where the separation's interval "
        "reaches 0 the shares mean nothing.",
    )


def _effect(effect: CausalEffect) -> tuple[str, str, str]:
    return shown(effect.value), number(float(effect.null.max()), 3), f"{effect.p_value:.3f}"


def _codes(reports: Reports) -> Part:
    rows = tuple(
        (report.site, name, number(code.bits / 1000, 3), number(code.compression, 3))
        for report in reports
        for name, code in report.codes.items()
    )
    if not rows:
        return Paragraph(text="Online codes were not asked for, or the groups were too few.")
    return Table(
        title="Online codes of the training items' labels",
        columns=("site", "labels", "kbits", "compression"),
        rows=rows,
        caption="Compression is the uniform code's length over the online code's: 1 is no better "
        "than knowing nothing.",
    )


def _definitions() -> Definitions:
    return Definitions(
        title="What the words mean",
        entries=(
            Definition(
                term="encoded",
                text="yes: the AUROC's interval lies above 1/2, and the accuracy's lead over every "
                "baseline lies above 0. not beyond controls: a baseline that knows less does as "
                "well. no: the AUROC's interval reaches 1/2.",
            ),
            Definition(
                term="used",
                text="yes: both pushing along the direction and ablating it change the preferred "
                "continuation as claimed, more than random changes (p ≤ 0.05) and with an interval "
                "above 0. partly: one of the two. no behaviour: the model's preference does not "
                "tell the classes apart in the first place.",
            ),
            Definition(
                term="selectivity",
                text="Accuracy less that of the same method on a control task, in which every type "
                "(token, word) has a random label of its own.",
            ),
            Definition(
                term="groups",
                text="Documents, nouns or pairs: what must not stand on both sides of a split, and "
                "what intervals resample.",
            ),
        ),
    )


def _missing(reports: Reports) -> Part:
    lines = tuple(dict.fromkeys(line for report in reports for line in report.missing))
    if not lines:
        return Paragraph(text="Every control could be run.")
    return Table(
        title="Controls that could not be run",
        columns=("control", "reason"),
        rows=tuple((line.partition(": ")[0], line.partition(": ")[2]) for line in lines),
        caption="",
    )
