import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from modelassay.audit.result import Audit
from modelassay.report.axes import tick_label
from modelassay.report.build import build
from modelassay.report.parts import Broken, Code, Histograms
from modelassay.report.sections import (
    evidence,
    latents,
    methods,
    reconstruction,
    variance,
    verdicts,
)


def test_no_part_of_a_whole_audit_is_broken(audit: Audit) -> None:
    parts = [part for section in build(audit).sections for part in section.parts]
    assert [p for p in parts if isinstance(p, Broken)] == []
    assert len(parts) > 12


def test_the_headline_counts(audit: Audit) -> None:
    count = audit.verdicts.count("model")
    assert verdicts.headline(audit).text.startswith(f"{count} of {audit.width} latents (")
    one = replace(audit, verdicts=("model", *["dead"] * (audit.width - 1)))
    assert (
        verdicts.headline(one).text
        == f"1 of {audit.width} latents (2.1%) is a feature of the model."
    )


def test_the_baselines_stand_beside_the_audited_dictionary(audit: Audit) -> None:
    part = verdicts.baselines(audit)
    assert [bar.name for bar in part.bars] == [audit.dictionary, "random", "pca", "frozen"]
    assert part.bars[3].shares["model"] == 0.1
    assert part.bars[0].shares == audit.shares()
    assert "best baseline, frozen" in part.caption


def test_a_baseline_as_good_as_the_dictionary_is_called_out(audit: Audit) -> None:
    rival = {"model": 1.0, "activations": 0.0, "undetermined": 0.0, "dead": 0.0}
    caption = verdicts.baselines(replace(audit, baselines={"random": rival})).caption
    assert "do not credit" in caption
    assert "lacks its yardstick" in verdicts.baselines(replace(audit, baselines={})).caption


def test_what_would_change_it_counts_the_undetermined(audit: Audit) -> None:
    only_unclear = definite = 0
    for latent, verdict in enumerate(audit.verdicts):
        if verdict == "undetermined":
            given = {answers[latent] for answers in audit.answers.values()}
            definite += "no" in given
            only_unclear += "no" not in given
    text = verdicts.what_would_change_it(audit).text
    assert f"Of the {only_unclear + definite} undetermined latents, {only_unclear} have" in text
    assert f"The other {definite} have" in text
    settled = replace(audit, verdicts=("model",) * audit.width)
    assert "No latent is undetermined" in verdicts.what_would_change_it(settled).text


def test_every_figure_names_its_data(audit: Audit) -> None:
    data = "Data: 20,000 held-out tokens in 140 documents of made-up text."
    figures = (
        verdicts.verdict_shares(audit),
        verdicts.baselines(audit),
        reconstruction.comparison(audit),
        variance.scatter(audit),
        evidence.answers(audit),
        evidence.distributions(audit),
        latents.catalogue(audit),
    )
    assert all(data in figure.caption for figure in figures)


def test_answers_count_only_latents_that_fire(audit: Audit) -> None:
    alive = [i for i, v in enumerate(audit.verdicts) if v != "dead"]
    bar = evidence.answers(audit).bars[1]
    counts = Counter(audit.answers["read"][i] for i in alive)
    assert bar.n == len(alive)
    assert bar.shares == {k: counts[k] / len(alive) for k in ("yes", "unclear", "no")}


def test_histograms_hold_every_measured_latent_once(audit: Audit) -> None:
    part = evidence.distributions(audit)
    assert isinstance(part, Histograms)
    for histogram, source in zip(part.histograms, audit.latent_evidence, strict=True):
        measured = int(torch.isfinite(source.value).sum())
        assert sum(map(sum, histogram.counts.values())) == measured
        assert f"n = {measured}" in histogram.note
    by_name = dict(zip([e.name for e in audit.latent_evidence], part.histograms, strict=True))
    thresholds = {t.name: t.value for t in audit.thresholds}
    assert by_name["written"].threshold == thresholds["written share"]
    assert by_name["read"].threshold == 0.0
    assert by_name["null_twin_match"].threshold == thresholds["match"]
    assert by_name["firing_rate"].threshold is None
    assert by_name["firing_rate"].null_counts == ()


def test_the_comparison_has_every_metric_of_every_decomposition(audit: Audit) -> None:
    lacking = replace(audit.reconstruction[2], evidence=audit.reconstruction[2].evidence[1:])
    rows = (*audit.reconstruction[:2], lacking, *audit.reconstruction[3:])
    part = reconstruction.comparison(replace(audit, reconstruction=rows))
    first = part.metrics[0]
    assert part.columns == ("topk", "random", "pca", "frozen")
    assert len(part.metrics) == 5
    assert {e.null for e in first.estimates if e is not None} == {0.0}
    assert [None if e is None else round(e.value, 3) for e in first.estimates] == [
        0.9, 0.35, None, 0.6,
    ]  # fmt: skip
    assert first.n == 1000
    assert first.axis.low < 0 < 0.91 < first.axis.high


def test_losses_behind_the_shares_are_small_print(audit: Audit) -> None:
    own = audit.reconstruction[0]
    loss = replace(own.evidence[3], name="ce_spliced", title="Cross-entropy")
    rows = (replace(own, evidence=(*own.evidence, loss)), *audit.reconstruction[1:])
    changed = replace(audit, reconstruction=rows)
    assert [m.title for m in reconstruction.losses(changed).metrics] == ["Cross-entropy"]
    assert reconstruction.losses(changed).folded
    assert len(reconstruction.comparison(changed).metrics) == 5


def test_an_unknown_reference_does_not_hide_the_known_ones(audit: Audit) -> None:
    first = replace(audit.latent_evidence[0], references=("nobody1900", "efron1979"))
    text = methods.references(replace(audit, latent_evidence=(first,))).text
    assert "@article{efron1979" in text
    assert "% nobody1900: not known to this version" in text


def test_the_dashed_line_is_the_median_null(audit: Audit) -> None:
    ratios = sorted((audit.variance.null_fisher / audit.variance.null_euclidean).tolist())
    middle = (ratios[63] + ratios[64]) / 2
    assert variance.scatter(audit).ratio == pytest.approx(middle, rel=1e-5)
    none = replace(audit.variance, null_fisher=torch.zeros(128))
    assert math.isnan(variance.scatter(replace(audit, variance=none)).ratio)


def test_the_scatter_says_what_it_leaves_out(audit: Audit) -> None:
    part = variance.scatter(audit)
    dead = audit.verdicts.count("dead")
    assert f"{audit.width - dead} latents, coloured by verdict" in part.caption
    assert f"Not drawn: {dead} latents" in part.caption
    assert [(s.key, len(s.x)) for s in part.nulls] == [("random", 80), ("pca", 48)]
    np.testing.assert_array_equal(part.x, audit.variance.euclidean.numpy())


def test_the_rule_follows_the_thresholds(audit: Audit) -> None:
    rows = {row[0]: row[2:] for row in methods.rule(audit).rows}
    values = {t.name: tick_label(t.value) for t in audit.thresholds}
    assert rows["written"][0] == f"the whole interval is above {values['written share']}"
    assert rows["written"][1] == f"the whole interval is below {values['written share']}"
    assert rows["learned"][0] == f"the whole interval is below {values['match']}"
    assert rows["stable"][0] == f"the whole interval is above {values['match']}"
    assert rows["read"][0] == "the whole interval is above 0 and q passes its threshold"


def test_methods_name_every_threshold_reference_and_fact(audit: Audit) -> None:
    rows = {row[0]: row[1:] for row in methods.thresholds(audit).rows}
    assert {t.name for t in audit.thresholds} == set(rows)
    assert "efron1979" in methods.references(audit).text
    assert isinstance(methods.references(audit), Code)
    facts = dict(methods.provenance(audit).rows)
    assert facts["heldout tokens"] == "20,000"
    assert facts["seed"] == "0"
    assert facts["subject"] == "toy <model>"
    terms = [entry.term for entry in methods.reconstruction_evidence(audit).entries]
    assert terms[:2] == ["Explained variance of the latent", "L0 of the latent"]
    assert len(terms) == len(set(terms)) == 5


def test_an_audit_without_numbers_still_has_a_page(audit: Audit) -> None:
    nothing = torch.full((audit.width,), math.nan)
    empty = tuple(
        replace(e, value=nothing, low=nothing, high=nothing) for e in audit.latent_evidence
    )
    sections = build(replace(audit, latent_evidence=empty, thresholds=())).sections
    assert not any(isinstance(p, Broken) for s in sections for p in s.parts)
