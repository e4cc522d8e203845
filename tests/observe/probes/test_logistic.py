"""Logistic probes: the certified optimum, the choice of the penalty, and what they refuse."""

import numpy as np
import pytest
import torch
from scipy import optimize

from modelassay.core.errors import NonFiniteError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.probes.data import train_test
from modelassay.observe.probes.logistic import Logistic
from modelassay.observe.probes.softmax_regression import GAP, softmax_regression
from tests.observe.probes.planted import planted


@pytest.mark.parametrize("n_classes", [2, 4])
def test_the_optimum_is_that_of_an_independent_optimiser(n_classes: int):
    g = generator(1)
    inputs = torch.randn(300, 5, generator=g, dtype=torch.float64)
    labels = torch.randint(n_classes, (300,), generator=g)
    weights = torch.rand(300, generator=g) + 0.5
    fitted = softmax_regression(inputs, labels, n_classes=n_classes, l2=0.05, weights=weights)
    columns = 1 if n_classes == 2 else n_classes

    def objective(flat: np.ndarray) -> float:
        theta = torch.from_numpy(flat).view(6, columns)
        logits = inputs @ theta[:-1] + theta[-1]
        if columns == 1:
            logits = torch.cat([torch.zeros_like(logits), logits], 1)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        mean = (weights.double() * losses).sum() / weights.double().sum()
        return float(mean + 0.025 * theta[:-1].square().sum())

    other = optimize.minimize(objective, np.zeros(6 * columns), method="BFGS", tol=1e-9)
    mine = torch.cat([fitted.head.weight, fitted.head.bias[None]])
    assert objective(mine.flatten().numpy()) <= other.fun + 1e-9
    assert torch.allclose(
        fitted.head.weight, torch.from_numpy(other.x).view(6, columns)[:-1], atol=1e-4
    )
    assert fitted.gap <= GAP


def test_separable_classes_converge_under_a_weak_penalty():
    data, _ = planted(strength=40.0)
    probe = Logistic(l2=1e-4).fit(data, generator(0))
    assert probe.facts["gap"] <= GAP


def test_a_planted_concept_is_recovered():
    data, direction = planted()
    split = train_test(data, generator(0))
    probe = Logistic().fit(split.train, generator(1))
    assert probe.score(split.test).auroc.value >= 0.98
    assert float(probe.direction().float() @ direction) > 0.9


def test_labels_without_a_cause_choose_the_strongest_penalty():
    data, _ = planted(strength=0.0)
    probe = Logistic().fit(data, generator(0))
    assert probe.facts["l2"] == 1.0


def test_a_constant_column_changes_nothing():
    data, _ = planted()
    wide = data.with_activations(torch.cat([data.activations, torch.full((1200, 1), 7.0)], 1))
    plain, other = (Logistic(l2=0.01).fit(d, generator(0)) for d in (data, wide))
    assert torch.allclose(
        plain.probabilities(data.activations), other.probabilities(wide.activations), atol=1e-6
    )


def test_preprocessing_is_inside_the_probe():
    data, _ = planted()
    moved = data.with_activations(data.activations * 100 + 1000)
    plain, other = (Logistic(l2=0.01).fit(d, generator(0)) for d in (data, moved))
    assert torch.allclose(
        plain.probabilities(data.activations), other.probabilities(moved.activations), atol=1e-3
    )


def test_a_probe_refuses_groups_that_it_was_trained_on():
    data, _ = planted()
    probe = Logistic(l2=0.01).fit(data, generator(0))
    with pytest.raises(ValueRangeError, match=r"groups that it was not trained on; got 'document"):
        probe.score(data)


def test_one_class_is_refused():
    data, _ = planted()
    alike = data.with_labels(torch.ones_like(data.labels))
    with pytest.raises(ValueRangeError, match=r"at least two classes; got only 'yes'"):
        Logistic().fit(alike, generator(0))


def test_nan_is_refused():
    data, _ = planted()
    broken = data.activations.clone()
    broken[3, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="item 3"):
        data.with_activations(broken)


def test_no_penalty_is_refused():
    data, _ = planted()
    with pytest.raises(ValueRangeError, match="l2 must be above 0"):
        Logistic(l2=0.0).fit(data, generator(0))
