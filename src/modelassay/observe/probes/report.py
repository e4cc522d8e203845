"""`ProbeReport`: what is encoded and what is used, as two measured columns, with every control."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.probes.causal import CausalTest, Use
from modelassay.observe.probes.description_length import OnlineCode
from modelassay.observe.probes.scores import Measured, Scores

Encoded = Literal["yes", "not beyond controls", "no"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """What less knowledge, or none, achieves on the same test items."""

    name: str
    meaning: str
    scores: Scores
    lead: Measured
    """Accuracy of the probe less that of the baseline, resampled together by group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeReport:
    """A probe at one site with its controls and, where behaviour was given, its causal test."""

    subject: str
    site: str
    method: str
    concept: str
    classes: tuple[str, ...]
    n_train: int
    n_test: int
    n_train_groups: int
    n_test_groups: int
    balance: Float[Tensor, " class"]
    """Share of each class among the test items."""
    scores: Scores
    baselines: tuple[Baseline, ...]
    selectivity: Measured | None
    """Accuracy less that of the same method on a control task; None without recurring types."""
    codes: Mapping[str, OnlineCode]
    """Online codes of the labels, and of controls; empty where none was asked for."""
    erased: Scores | None
    """The method fitted again after LEACE of the training items, on erased test items."""
    causal: CausalTest | None
    direction: Float[Tensor, " width"] | None
    """Unit vector towards class 1; None for probes without one."""
    facts: Mapping[str, float]
    """What the fit chose."""
    missing: tuple[str, ...]
    """Controls that could not be run, with reasons."""

    @property
    def encoded(self) -> Encoded:
        """Whether the label can be decoded, and whether better than by every control.

        "No" if the AUROC's interval reaches down to 1/2; "not beyond controls" if the interval of
        the lead over some baseline reaches down to 0.
        """
        if not self.scores.auroc.low > 0.5:
            return "no"
        if all(baseline.lead.low > 0 for baseline in self.baselines):
            return "yes"
        return "not beyond controls"

    @property
    def used(self) -> Use | Literal["not tested"]:
        """Whether the model's behaviour follows the direction."""
        return "not tested" if self.causal is None else self.causal.used

    def baseline(self, name: str) -> Baseline | None:
        """A baseline by its name, or None if it was not run."""
        return next((each for each in self.baselines if each.name == name), None)


COLUMNS = (
    "site", "encoded", "used", "accuracy", "AUROC", "selectivity", "best control", "compression",
    "push", "ablate",
)  # fmt: skip


def row_of(report: ProbeReport) -> tuple[str, ...]:
    """A report in one row of `COLUMNS`; dashes for what was not measured."""
    best = max(report.baselines, key=lambda b: b.scores.accuracy.value, default=None)
    code = report.codes.get("labels")
    effects = {} if report.causal is None else {e.name: e for e in report.causal.effects}

    def effect(name: str) -> str:
        found = effects.get(name)
        if found is None or report.used == "no behaviour":
            return "–"
        return f"{found.value.value:.2f} (p {found.p_value:.2f})"

    return (
        report.site,
        report.encoded,
        report.used,
        shown(report.scores.accuracy),
        f"{report.scores.auroc.value:.3f}",
        "–" if report.selectivity is None else f"{report.selectivity.value:.3f}",
        "–" if best is None else f"{best.scores.accuracy.value:.3f} ({best.name})",
        "–" if code is None else f"{code.compression:.2f}",
        effect("push"),
        effect("ablate"),
    )


def table(reports: tuple[ProbeReport, ...]) -> str:
    """Reports under each other in aligned columns, for a terminal."""
    rows = [COLUMNS, *map(row_of, reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def shown(measured: Measured) -> str:
    """A value with its interval, to two digits after the point where it has one."""
    if torch.tensor(measured.low).isnan():
        return f"{measured.value:.3f}"
    return f"{measured.value:.3f} [{measured.low:.2f}, {measured.high:.2f}]"
