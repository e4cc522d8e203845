"""The whole study: reading items, every control, reports, and the generalisation matrix."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import ShapeError, TooFewTokensError, UnknownNameError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.probes.behaviour import Choices
from modelassay.observe.probes.data import train_test
from modelassay.observe.probes.generalisation import generalisation_matrix
from modelassay.observe.probes.items import items_from_prompts, read_activations
from modelassay.observe.probes.logistic import Logistic
from modelassay.observe.probes.mass_mean import MassMean
from modelassay.observe.probes.report import COLUMNS, row_of, table
from modelassay.observe.probes.sites import probe_sites
from modelassay.observe.probes.study import Study, probe_report
from modelassay.subjects.site import Site
from modelassay.subjects.testing import tiny_subject
from tests.observe.probes.planted import planted

FIXED = Logistic(l2=0.01)
QUICK = Study(description_length=False)


def reported(data, **options):
    names = {"subject": "none", "site": "planted", "concept": "planted"}
    return probe_report(FIXED, train_test(data, generator(0)), **names, **options)


def test_a_planted_concept_is_encoded_beyond_all_controls():
    data, _ = planted()
    report = reported(data)
    assert report.encoded == "yes"
    assert report.used == "not tested"
    assert report.scores.auroc.value >= 0.98
    assert report.selectivity.low > 0.3
    assert report.codes["labels"].compression > 3 * report.codes["control task"].compression
    assert report.erased.auroc.value == pytest.approx(0.5, abs=0.15)
    assert [b.name for b in report.baselines] == [
        "majority", "shuffled labels", "type lookup", "bag of tokens",
    ]  # fmt: skip
    assert report.missing == ()


def test_control_labels_as_labels_are_not_encoded_and_have_no_selectivity():
    data, _ = planted(strength=0.0)
    report = reported(data, study=QUICK)
    assert report.encoded == "no"
    assert report.selectivity.low < 0 < report.selectivity.high
    assert abs(report.selectivity.value) < 0.1


def test_a_label_that_the_token_decides_is_not_beyond_controls():
    data, _ = planted()
    by_type = replace(data, types=data.labels * 20 + data.types % 20)
    report = reported(by_type, study=QUICK)
    assert report.encoded == "not beyond controls"
    assert report.baseline("type lookup").scores.accuracy.value == 1.0


def test_controls_that_cannot_run_are_named():
    data, _ = planted()
    report = reported(replace(data, types=None, contexts=None), study=QUICK)
    assert report.selectivity is None
    assert [line.partition(":")[0] for line in report.missing] == [
        "type lookup", "bag of tokens", "selectivity",
    ]  # fmt: skip


def test_a_row_has_a_cell_for_every_column():
    data, _ = planted()
    report = reported(data, study=QUICK)
    assert len(row_of(report)) == len(COLUMNS)
    assert "planted" in table((report,))


def prompts_of(n: int = 120) -> tuple[list[list[int]], list[int]]:
    tokens = torch.randint(3, 60, (n, 6), generator=generator(0))
    return tokens.tolist(), (tokens[:, 3] % 2).tolist()


def items(n: int = 120):
    prompts, labels = prompts_of(n)
    groups = [str(number // 3) for number in range(n)]
    return items_from_prompts(prompts, labels, groups=groups, classes=("even", "odd"))


def test_sites_of_a_model_are_probed_with_embedding_and_null_twin():
    subject = tiny_subject()
    prompts, _ = prompts_of()
    choices = Choices.of(prompts, [([1], [2])] * len(prompts))
    reports = probe_sites(
        subject, items(), ["resid_pre.0", "resid_post.1"], MassMean(), concept="parity",
        choices=choices, n_nulls=2, most_causal=10, study=QUICK,
    )  # fmt: skip
    assert [report.site for report in reports] == ["resid_pre.0", "resid_post.1"]
    assert reports[0].baseline("embedding") is None
    assert reports[1].baseline("embedding") is not None
    assert reports[1].baseline("null twin") is not None
    assert reports[1].causal.n_items == 10


def test_the_token_at_the_item_is_read():
    subject = tiny_subject()
    found = read_activations(subject, items(), ["resid_post.0"], batch_contexts=7)
    data = found[Site("resid_post", 0)]
    prompts, _ = prompts_of()
    whole = subject.run(torch.tensor(prompts), read=[Site("resid_post", 0)])
    expected = whole.activations[Site("resid_post", 0)]
    assert torch.allclose(data.activations, expected[:, -1], atol=1e-5)
    assert data.contexts.tolist() == prompts
    pooled = read_activations(subject, items(), ["resid_post.0"], pool="mean")
    assert torch.allclose(pooled[Site("resid_post", 0)].activations, expected.mean(1), atol=1e-5)


def test_prompts_of_unequal_length_read_as_alone():
    subject = tiny_subject()
    both = items_from_prompts(
        [[5, 6, 7, 8], [9, 10]], [0, 1], groups=["a", "b"], classes=("x", "y")
    )
    alone = items_from_prompts([[9, 10]], [1], groups=["b"], classes=("x", "y"))
    site = Site("resid_post", 1)
    first, second = (read_activations(subject, i, [site])[site] for i in (both, alone))
    assert torch.allclose(first.activations[1], second.activations[0], atol=1e-5)
    assert first.contexts.tolist() == [[5, 6, 7, 8], [9, 10, -1, -1]]


def test_bad_items_are_refused():
    with pytest.raises(TooFewTokensError, match="1 of them empty"):
        items_from_prompts([[1], []], [0, 1], groups=["a", "b"], classes=("x", "y"))
    with pytest.raises(ShapeError, match=r"must be as many; got \[2, 1, 2\]"):
        items_from_prompts([[1], [2]], [0], groups=["a", "b"], classes=("x", "y"))
    with pytest.raises(UnknownNameError, match="Pool must be one of"):
        read_activations(tiny_subject(), items(6), ["resid_post.0"], pool="sum")
    with pytest.raises(ShapeError, match=r"one activation per token; got 'attn_pattern\.0'"):
        read_activations(tiny_subject(), items(6), ["attn_pattern.0"])


def test_a_generalisation_matrix_shows_which_sets_agree():
    first, _ = planted(seed=1)
    alike = replace(first, group_names=tuple(f"other {n}" for n in range(60)))
    strange, _ = planted(seed=2)
    strange = replace(strange, group_names=tuple(f"strange {n}" for n in range(60)))
    sets = {
        name: train_test(data, generator(0))
        for name, data in {"first": first, "alike": alike, "strange": strange}.items()
    }
    found = generalisation_matrix(FIXED, sets)
    assert found.names == ("first", "alike", "strange")
    assert found.scores[0][1].auroc.value > 0.98
    assert found.scores[0][2].auroc.value < 0.9
    assert found.scores[2][2].auroc.value > 0.98


def test_a_matrix_leaves_out_test_sets_that_were_trained_on():
    data, _ = planted()
    one, other = (train_test(data, generator(seed)) for seed in (0, 1))
    found = generalisation_matrix(FIXED, {"one": one, "other": other})
    assert found.scores[0][0] is not None
    assert found.scores[0][1] is None


def test_sets_of_other_classes_are_refused():
    data, _ = planted()
    renamed = replace(
        data, classes=("false", "true"), group_names=tuple(f"other {n}" for n in range(60))
    )
    sets = {"a": train_test(data, generator(0)), "b": train_test(renamed, generator(0))}
    with pytest.raises(ValueRangeError, match="scored on its own classes"):
        generalisation_matrix(FIXED, sets)
