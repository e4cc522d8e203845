from collections.abc import Callable

import pytest

from modelassay.audit.calibration import PLANTED, TESTBEDS, stored_calibration
from modelassay.audit.result import Audit
from modelassay.report.sections import calibration
from modelassay.report.sections.evidence import distributions
from modelassay.report.sections.latents import catalogue
from modelassay.report.sections.reconstruction import comparison


def test_every_score_that_was_calibrated_says_so_beside_it(make_audit: Callable[..., Audit]):
    audit = make_audit(12)
    for histogram, evidence in zip(
        distributions(audit).histograms, audit.latent_evidence, strict=True
    ):
        calibrated = stored_calibration().of(evidence.name) is not None
        assert ("AUROC" in histogram.note) == calibrated, evidence.name
    read = next(column for column in catalogue(audit).columns if column.name == "read")
    assert f"{stored_calibration().of('read').auroc[PLANTED].value:.3f}" in read.definition  # pyright: ignore[reportOptionalMemberAccess]
    for metric in comparison(audit).metrics:
        if "recovered" in metric.title.lower() and "cross" in metric.title.lower():
            assert "A latent's part in it has an AUROC" in metric.definition


def test_the_table_of_worth_shows_both_places_and_chance(make_audit: Callable[..., Audit]):
    table = calibration.worth_of_scores(make_audit(12))
    assert table.columns == (PLANTED, TESTBEDS)
    names = [metric.title for metric in table.metrics]
    assert "Explained variance" in names
    for metric in table.metrics:
        shown = [estimate for estimate in metric.estimates if estimate is not None]
        assert shown
        assert all(estimate.null == 0.5 for estimate in shown)


def test_the_verdicts_on_planted_features_are_shares(make_audit: Callable[..., Audit]):
    shares = calibration.worth_of_verdicts(make_audit(12))
    for bar in shares.bars:
        assert sum(bar.shares.values()) == pytest.approx(1)
    assert "held-out planted models" in shares.caption


def test_what_was_not_calibrated_has_no_note():
    assert calibration.note_on("nonsense") == ""
