"""What each score is worth: how well it told model from activations where the truth is known."""

import math

from modelassay.audit.calibration import (
    PLANTED,
    TESTBEDS,
    EvidenceCalibration,
    stored_calibration,
)
from modelassay.audit.result import Audit
from modelassay.evidence.auroc import Auroc
from modelassay.report.axes import Axis, number, percent
from modelassay.report.parts import Comparison, Estimate, Metric, Paragraph, ShareBar, Shares
from modelassay.report.wording import VERDICT_CLASSES

_CHANCE = 0.5
_USUAL = {"l0": "firing_rate", "explained_variance": "explained_variance"}
"""Evidence on a whole dictionary -> the calibrated part of a latent in it."""
_USES = {
    "common": "Read",
    "rare": "Read, but rare",
    "combination": "Read only in combination",
    "ignored": "Written but ignored",
}


def how_to_read(audit: Audit) -> Paragraph:
    """What was calibrated, and on what."""
    del audit
    calibration = stored_calibration()
    return Paragraph(
        text="The scores below were also measured where the truth is known: on language "
        "models into which features were planted, of which each is read in one model and ignored "
        "in a twin with identical activations, and on the testbeds. AUROC is the chance that a "
        "feature of the model scores above a feature of the activations alone: 1 is certain, ½ is "
        "a coin toss. The statistic, the cut and the sample size of the read test were chosen on "
        f"planted models of other seeds ({_listed(calibration.setting_seeds)}) than those of this "
        f"section ({_listed(calibration.reporting_seeds)}); the other thresholds have reasons of "
        "their own, given under Methods.",
    )


def worth_of_scores(audit: Audit) -> Comparison:
    """AUROC of every evidence and of the field's usual metrics."""
    del audit
    calibration = stored_calibration()
    return Comparison(
        title="How well each score tells model from activations",
        columns=(PLANTED, TESTBEDS),
        metrics=tuple(_metric(each) for each in calibration.evidence),
        caption="AUROC with its 95 % interval (bootstrap over planted features, and over "
        "testbeds); the tick is chance. The last rows are a latent's part in the field's usual "
        "metrics. An interval that holds ½ carries no information on the question.",
    )


def worth_of_verdicts(audit: Audit) -> Shares:
    """The verdicts on planted features, by how they are used."""
    del audit
    calibration = stored_calibration()
    verdict, setting = calibration.verdict, calibration.setting_verdict
    kinds = [kind for kind in _USES if kind in verdict.shares]
    return Shares(
        title="Verdicts on planted features",
        classes=VERDICT_CLASSES,
        bars=tuple(
            ShareBar(name=_USES[kind], shares=verdict.shares[kind], n=verdict.counts[kind])
            for kind in kinds
        ),
        caption=f"On held-out planted models the final verdict has an AUROC of "
        f"{_interval(verdict.auroc)} and leaves {percent(verdict.undetermined)} undetermined; "
        f"{percent(verdict.found)} of the planted features were found by a latent and judged. On "
        f"the seeds that the read test was chosen on: {number(setting.auroc.value)} and "
        f"{percent(setting.undetermined)}.",
    )


def note_on(name: str) -> str:
    """One sentence on an evidence's calibration; empty if it was not calibrated."""
    found = stored_calibration().of(_part_of(name))
    if found is None or not found.auroc:
        return ""
    told = ", ".join(f"{_interval(auroc)} on {place}" for place, auroc in found.auroc.items())
    part = "" if found.name == name and found.in_audit else "A latent's part in it has an "
    return f"{part}AUROC at telling model from activations: {told}."


def _part_of(name: str) -> str:
    return "ce_change" if name.startswith("ce_recovered_") else _USUAL.get(name, name)


def _metric(calibrated: EvidenceCalibration) -> Metric:
    found = [calibrated.auroc.get(place) for place in (PLANTED, TESTBEDS)]
    return Metric(
        title=calibrated.title,
        unit="AUROC",
        better="lower" if calibrated.lower_is_better else "higher",
        definition="Chance that a feature of the model has the better value than a feature of the "
        "activations alone, ties and missing values counted half.",
        null_description="A coin toss.",
        n=sum(a.n_positive + a.n_negative for a in found if a is not None),
        estimates=tuple(None if a is None else _estimate(a) for a in found),
        axis=Axis(low=0.0, high=1.0),
    )


def _estimate(auroc: Auroc) -> Estimate:
    return Estimate(value=auroc.value, low=auroc.low, high=auroc.high, null=_CHANCE)


def _interval(auroc: Auroc) -> str:
    if math.isnan(auroc.low):
        return f"{auroc.value:.3f}"
    return f"{auroc.value:.3f} [{auroc.low:.3f}, {auroc.high:.3f}]"


def _listed(seeds: tuple[int, ...]) -> str:
    return "seeds " + ", ".join(map(str, seeds))
