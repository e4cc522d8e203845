"""How each piece of evidence is spread over the latents, against its null."""

import numpy as np

from modelassay.audit.parts import QUESTIONS
from modelassay.audit.result import Audit
from modelassay.evidence.evidence import Evidence
from modelassay.report.axes import Axis, axis_over, bin_counts
from modelassay.report.parts import Histogram, Histograms, ShareBar, Shares
from modelassay.report.sections.calibration import note_on
from modelassay.report.sections.verdicts import data_of
from modelassay.report.wording import ANSWER_CLASSES, VERDICT_CLASSES

_BINS = 36
_DECISIVE = {
    "written": "written share",
    "read": "read: log effect ratio",
    "null_twin_match": "match",
    "stable": "match",
}
"""Evidence -> name of the threshold that its question is decided at."""


def answers(audit: Audit) -> Shares:
    """The four answers over the latents that fire."""
    alive = [i for i, verdict in enumerate(audit.verdicts) if verdict != "dead"]
    bars = []
    for question in QUESTIONS:
        given = [audit.answers[question][i] for i in alive]
        shares = {c.key: given.count(c.key) / max(1, len(alive)) for c in ANSWER_CLASSES}
        bars.append(ShareBar(name=question.capitalize(), shares=shares, n=len(alive)))
    return Shares(
        title="Answers to the four questions",
        classes=ANSWER_CLASSES,
        bars=tuple(bars),
        caption=f"Answers for the {len(alive):,} latents that fire. An answer is unclear unless "
        f"the whole 95 % interval lies on one side of the threshold. {data_of(audit)}",
    )


def distributions(audit: Audit) -> Histograms:
    """One histogram per evidence, coloured by verdict, with the null as an outline."""
    return Histograms(
        title="Each evidence against its null",
        classes=VERDICT_CLASSES,
        histograms=tuple(_histogram(audit, e) for e in audit.latent_evidence),
        caption="Latents per bin, stacked by verdict. The outline is the same latents' null, cut "
        "where it leaves the frame; the dotted line is the threshold that a verdict depends on. "
        f"Values beyond an axis count in its outermost bin. {data_of(audit)}",
    )


def _histogram(audit: Audit, evidence: Evidence) -> Histogram:
    value, null = evidence.value.numpy(), evidence.null.numpy()
    threshold = threshold_of(audit, evidence.name)
    axis = axis_of(evidence, threshold)
    verdicts = np.array(audit.verdicts)
    measured = np.isfinite(value)
    note = f"n = {int(measured.sum()):,} of {audit.width:,} latents."
    null_counts: tuple[int, ...] = ()
    if np.isfinite(null).any():
        null_counts = bin_counts(axis, null[measured], _BINS)
        note += f" Null: {evidence.null_description.rstrip('.')}."
    note = f"{note} {note_on(evidence.name)}".rstrip()
    return Histogram(
        title=evidence.title,
        unit=evidence.unit,
        axis=axis,
        counts={c.key: bin_counts(axis, value[verdicts == c.key], _BINS) for c in VERDICT_CLASSES},
        null_counts=null_counts,
        threshold=threshold,
        note=note,
    )


def threshold_of(audit: Audit, name: str) -> float | None:
    """The value that decides a question by the evidence of that name; None if none does."""
    values = {t.name: t.value for t in audit.thresholds}
    return values.get(_DECISIVE[name]) if name in _DECISIVE else None


def axis_of(evidence: Evidence, threshold: float | None) -> Axis:
    """One axis for values and nulls, wide enough to show the threshold."""
    values = np.concatenate([evidence.value.numpy(), evidence.null.numpy()])
    return axis_over(values, include=() if threshold is None else (threshold,))
