"""How well the dictionary stands in for the activations, beside nulls and baselines."""

import numpy as np

from modelassay.audit.result import Audit
from modelassay.evidence.evidence import Evidence
from modelassay.report.axes import axis_over
from modelassay.report.parts import Comparison, Estimate, Metric, Paragraph
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
    """Every metric of every decomposition, with interval, null and sample size."""
    tables = [{e.name: e for e in row.evidence} for row in audit.reconstruction]
    names = list(dict.fromkeys(name for table in tables for name in table))
    return Comparison(
        title="Reconstruction",
        columns=tuple(row.name for row in audit.reconstruction),
        metrics=tuple(_metric([table.get(name) for table in tables]) for name in names),
        caption="Estimate and 95 % interval (bootstrap over documents). In the picture the "
        "filled dot is the audited dictionary, hollow ones are baselines, the tick is the null. "
        f"{data_of(audit)}",
    )


def _metric(evidence: list[Evidence | None]) -> Metric:
    first = next(e for e in evidence if e is not None)
    estimates = tuple(None if e is None else _estimate(e) for e in evidence)
    shown = [v for e in estimates if e is not None for v in (e.value, e.low, e.high)]
    null = float(first.null[0])
    return Metric(
        title=first.title,
        unit=first.unit,
        better=first.better,
        definition=first.definition,
        null=null,
        null_description=first.null_description,
        n=int(first.n[0]),
        estimates=estimates,
        axis=axis_over(np.array([]), include=(*shown, null)),
    )


def _estimate(evidence: Evidence) -> Estimate:
    return Estimate(
        value=float(evidence.value[0]), low=float(evidence.low[0]), high=float(evidence.high[0])
    )
