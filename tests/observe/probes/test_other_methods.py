"""Mass-mean, k-sparse, CCS and MLP probes on concepts whose truth is known."""

import pytest
import torch

from modelassay.core.errors import ShapeError, UnknownNameError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.probes.contrast import Ccs, contrast_loss
from modelassay.observe.probes.data import ProbeData, train_test
from modelassay.observe.probes.logistic import Logistic
from modelassay.observe.probes.mass_mean import MassMean, within_class_covariance
from modelassay.observe.probes.mlp import Mlp
from modelassay.observe.probes.sparse import Sparse
from tests.observe.probes.planted import planted


@pytest.mark.parametrize(
    "method",
    [MassMean(), MassMean(tilted=True), Mlp(n_epochs=15), Sparse(k=24)],
    ids=lambda m: m.name,
)
def test_a_planted_concept_is_recovered(method):
    data, direction = planted()
    split = train_test(data, generator(0))
    probe = method.fit(split.train, generator(1))
    assert probe.score(split.test).auroc.value >= 0.98
    if not isinstance(method, Mlp):
        assert float(probe.direction().float() @ direction) > 0.9


def correlated() -> ProbeData:
    """A concept whose means differ along one axis, in noise that is correlated with another."""
    g = generator(3)
    labels = torch.arange(2000) % 2
    common = torch.randn(2000, generator=g)
    first = 2 * common + 0.3 * torch.randn(2000, generator=g) + labels
    second = 2 * common + 0.3 * torch.randn(2000, generator=g)
    return ProbeData(
        activations=torch.stack([first, second], 1), labels=labels, groups=torch.arange(2000) // 20,
        group_names=tuple(str(n) for n in range(100)),
    )  # fmt: skip


def test_tilting_by_the_covariance_is_the_gaussian_optimum():
    split = train_test(correlated(), generator(0))
    plain, tilted, logistic = (
        m.fit(split.train, generator(0)) for m in (MassMean(), MassMean(tilted=True), Logistic())
    )
    # Fisher's direction is S^-1 (1, 0), nearly (1, -1) here; the means differ along (1, 0).
    assert torch.allclose(plain.direction(), torch.tensor([1.0, 0.0]).double(), atol=0.2)
    assert float(tilted.direction() @ logistic.direction()) > 0.999
    assert tilted.score(split.test).auroc.value > plain.score(split.test).auroc.value + 0.2


def test_the_covariance_is_within_classes():
    data, _ = planted(strength=20.0)
    covariance = within_class_covariance(data.activations, data.labels)
    assert torch.allclose(covariance, torch.eye(24).double(), atol=0.2)


def test_k_sparse_takes_the_coordinates_that_carry_the_label():
    data, _ = planted(strength=0.0)
    moved = data.activations.clone()
    moved[:, [5, 11]] += 3.0 * data.labels[:, None]
    split = train_test(data.with_activations(moved), generator(0))
    probe = Sparse(k=2).fit(split.train, generator(0))
    chosen = probe.direction().nonzero()[:, 0].tolist()
    assert chosen == [5, 11]
    random = Sparse(k=2, choice="random").fit(split.train, generator(1))  # other coordinates
    assert probe.score(split.test).auroc.value > random.score(split.test).auroc.value + 0.2


@pytest.mark.parametrize("k", [0, 25])
def test_k_outside_the_width_is_refused(k: int):
    data, _ = planted()
    with pytest.raises(ValueRangeError, match=r"k must be from 1 to the width 24; got"):
        Sparse(k=k).fit(data, generator(0))


def test_an_unknown_choice_is_refused():
    data, _ = planted()
    method = Sparse(k=2)
    object.__setattr__(method, "choice", "best")
    with pytest.raises(UnknownNameError, match="Choice must be one of"):
        method.fit(data, generator(0))


def pairs(n: int = 400) -> ProbeData:
    """Statement and negation: the truth's sign is opposite in the halves, and each is marked."""
    g = generator(4)
    truth = torch.nn.functional.normalize(torch.randn(10, generator=g), dim=0)
    mark = torch.randn(10, generator=g) * 3
    labels = torch.randint(2, (n,), generator=g)
    sign = (2.0 * labels - 1)[:, None]
    first = 2 * sign * truth + 0.3 * torch.randn(n, 10, generator=g) + mark
    second = -2 * sign * truth + 0.3 * torch.randn(n, 10, generator=g) - mark
    return ProbeData(
        activations=torch.cat([first, second], 1), labels=labels, groups=torch.arange(n) // 10,
        group_names=tuple(str(number) for number in range(n // 10)),
    )  # fmt: skip


def test_ccs_finds_the_truth_without_labels_and_not_the_mark():
    split = train_test(pairs(), generator(0))
    probe = Ccs(n_starts=3, rate=1e-2, n_epochs=300).fit(split.train, generator(1))
    assert probe.score(split.test).accuracy.value > 0.95


def test_the_contrast_loss_by_hand():
    rows = torch.zeros(1, 4, dtype=torch.float64)
    weight = torch.zeros(2, dtype=torch.float64)
    # p1 = p2 = 1/2: consistent, and as unsure as can be
    loss = contrast_loss(rows, weight, torch.tensor(0.0, dtype=torch.float64))
    assert float(loss) == pytest.approx(0.25)


def test_ccs_refuses_an_odd_width():
    data, _ = planted(width=9)
    with pytest.raises(ShapeError, match="must read pairs, of even width; got 9"):
        Ccs().fit(data, generator(0))


def test_only_an_mlp_reads_an_exclusive_or():
    g = generator(5)
    activations = torch.randn(1500, 4, generator=g)
    labels = ((activations[:, 0] > 0) ^ (activations[:, 1] > 0)).long()
    data = ProbeData(
        activations=activations, labels=labels, groups=torch.arange(1500) // 15,
        group_names=tuple(str(n) for n in range(100)),
    )  # fmt: skip
    split = train_test(data, generator(0))
    linear = Logistic().fit(split.train, generator(0)).score(split.test)
    mlp = Mlp(n_hidden=32).fit(split.train, generator(0))
    assert linear.auroc.value < 0.6
    assert mlp.score(split.test).auroc.value > 0.95
    with pytest.raises(ValueRangeError, match="must be linear and have two classes"):
        mlp.direction()
