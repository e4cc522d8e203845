"""How well the dictionary stands in for the activations, beside nulls and baselines."""

import numpy as np

from modelassay.audit.result import Audit
from modelassay.evidence.evidence import Evidence
from modelassay.report.axes import axis_over
from modelassay.report.parts import Comparison, Estimate, Metric, Paragraph
from modelassay.report.sections.calibration import note_on
from modelassay.report.sections.verdicts import data_of


def how_to_read(audit: Audit) -> Paragraph:
    """Why this table decides nothing about verdicts."""
    return Paragraph(
        text="A dictionary can rebuild the activations well without a single feature of the "
        f"model in it, so none of this enters a verdict. Read {audit.dictionary} against the "
        "baselines: a metric on which the random dictionary or the frozen decoder comes close "
        "says little about what was learned.",
    )


def comparison(audit: Audit) -> Comparison:
    """The metrics of every decomposition, with interval, null and sample size."""
    return Comparison(
        title="Reconstruction",
        columns=tuple(row.name for row in audit.reconstruction),
        metrics=tuple(metric for name, metric in _metrics(audit) if not _is_loss(name)),
        caption="Estimate, 95 % interval (bootstrap over documents), and each decomposition's own "
        "null. In the picture the filled dot is the audited dictionary, hollow ones are "
        f"baselines, ticks are nulls. {data_of(audit)}",
    )


def losses(audit: Audit) -> Comparison:
    """The losses that the recovered shares are made from."""
    return Comparison(
        title="The losses behind the recovered shares",
        columns=tuple(row.name for row in audit.reconstruction),
        metrics=tuple(metric for name, metric in _metrics(audit) if _is_loss(name)),
        caption=f"Nats per token, as in the table above. {data_of(audit)}",
        folded=True,
    )


def _is_loss(name: str) -> bool:
    return name.startswith(("ce_", "kl_")) and "_recovered_" not in name


def _metrics(audit: Audit) -> list[tuple[str, Metric]]:
    tables = [{e.name: e for e in row.evidence} for row in audit.reconstruction]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, _metric([table.get(name) for table in tables])) for name in names]


def _metric(evidence: list[Evidence | None]) -> Metric:
    first = next(e for e in evidence if e is not None)
    estimates = tuple(None if e is None else _estimate(e) for e in evidence)
    shown = [v for e in estimates if e is not None for v in (e.value, e.low, e.high, e.null)]
    return Metric(
        title=first.title,
        unit=first.unit,
        better=first.better,
        definition=f"{first.definition} {note_on(first.name)}".rstrip(),
        null_description=first.null_description,
        n=int(first.n[0]),
        estimates=estimates,
        axis=axis_over(np.array([]), include=tuple(shown)),
    )


def _estimate(evidence: Evidence) -> Estimate:
    numbers = evidence.at()
    return Estimate(**{key: numbers[key] for key in ("value", "low", "high", "null")})
