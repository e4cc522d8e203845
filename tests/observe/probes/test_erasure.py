"""LEACE: exact guarding, least change, streaming."""

import pytest
import torch

from modelassay.core.errors import NonFiniteError, ShapeError, TooFewTokensError
from modelassay.core.randomness import generator
from modelassay.observe.probes.data import train_test
from modelassay.observe.probes.erasure import ErasureMoments, fit_eraser, shrunk_covariance
from modelassay.observe.probes.logistic import Logistic
from tests.observe.probes.planted import planted


def test_after_erasure_a_logistic_probe_is_at_chance():
    data, _ = planted()
    split = train_test(data, generator(0))
    eraser = fit_eraser(split.train.activations.double(), split.train.labels)
    train = split.train.with_activations(eraser(split.train.activations.double()))
    probe = Logistic(l2=1e-3).fit(train, generator(1))
    # On the items themselves the best linear probe is a constant: no weight, everybody alike.
    assert float(probe.head.covector().norm()) < 1e-4
    likely = probe.probabilities(train.activations)[:, 1]
    assert torch.allclose(likely, train.balance[1].expand(len(likely)), atol=1e-4)
    test = split.test.with_activations(eraser(split.test.activations))
    assert probe.score(test).accuracy.value <= float(test.balance.max()) + 1e-9


def test_three_classes_are_erased_too():
    g = generator(1)
    labels = torch.randint(3, (600,), generator=g)
    activations = torch.randn(600, 8, generator=g).double()
    activations[:, :3] += 3 * torch.nn.functional.one_hot(labels, 3)
    eraser = fit_eraser(activations, labels, n_classes=3)
    assert eraser.rank == 2
    erased = eraser(activations)
    means = torch.stack([erased[labels == c].mean(0) for c in range(3)])
    assert float((means - means[0]).abs().max()) < 1e-9


def test_nothing_moves_the_activations_less():
    g = generator(2)
    data, _ = planted()
    mixing = torch.randn(24, 24, generator=g).double()
    activations = data.activations.double() @ mixing
    eraser = fit_eraser(activations, data.labels)
    moved = (eraser(activations) - activations).square().sum()
    # The orthogonal projection along the difference of means guards as well, and moves more.
    apart = activations[data.labels == 1].mean(0) - activations[data.labels == 0].mean(0)
    unit = apart / apart.norm()
    projected = ((activations - activations.mean(0)) @ unit).square().sum()
    assert float(moved) < 0.9 * float(projected)


def test_erasing_twice_is_erasing_once():
    data, _ = planted()
    eraser = fit_eraser(data.activations.double(), data.labels)
    once = eraser(data.activations.double())
    assert torch.allclose(eraser(once), once, atol=1e-9)


def test_a_stream_gives_the_same_eraser_as_one_batch():
    data, _ = planted()
    whole = fit_eraser(data.activations, data.labels)
    first, second = ErasureMoments(24, 2), ErasureMoments(24, 2)
    for part in torch.arange(1200).split(170):
        side = first if int(part[0]) % 2 else second
        side.update(data.activations[part], data.labels[part])
    first.merge(second)
    parted = first.eraser()
    assert torch.allclose(parted.left @ parted.right, whole.left @ whole.right, atol=1e-9)
    assert torch.allclose(parted.mean, whole.mean)


def test_fewer_items_than_components_still_guard():
    g = generator(3)
    activations, labels = torch.randn(10, 40, generator=g).double(), torch.arange(10) % 2
    erased = fit_eraser(activations, labels)(activations)
    assert float((erased[labels == 1].mean(0) - erased[labels == 0].mean(0)).abs().max()) < 1e-8


def test_shrinkage_is_nearer_to_the_truth_with_few_items():
    g = generator(4)
    truth = torch.diag(torch.linspace(0.5, 2, 30, dtype=torch.float64))
    drawn = torch.randn(45, 30, generator=g).double() @ truth.sqrt()
    sample = drawn.T @ drawn / 45
    assert (shrunk_covariance(sample, 45) - truth).norm() < 0.8 * (sample - truth).norm()


def test_shrinkage_vanishes_with_many_items():
    sample = torch.diag(torch.linspace(0.5, 2, 30, dtype=torch.float64))
    assert torch.allclose(shrunk_covariance(sample, 10**9), sample, atol=1e-6)


def test_bad_batches_are_refused():
    moments = ErasureMoments(3, 2)
    with pytest.raises(TooFewTokensError, match="at least two items; got 0"):
        moments.eraser()
    with pytest.raises(ShapeError, match="must have 3 components; got 4"):
        moments.update(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(NonFiniteError, match="must be finite"):
        moments.update(torch.full((2, 3), torch.nan), torch.zeros(2, dtype=torch.int64))
