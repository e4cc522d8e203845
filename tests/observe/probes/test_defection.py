"""Defection probes: a planted direction is found with its sign, and turned pairs are the null."""

import pytest
import torch

from modelassay.core.errors import (
    NonFiniteError,
    ShapeError,
    TooFewTokensError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.defection import ContrastPairs, detect

WIDTH, N_PAIRS, N_ITEMS = 24, 60, 200
AXIS = torch.nn.functional.one_hot(torch.tensor(3), WIDTH).double()


def pairs(strength: float, seed: int = 0, noise: float = 1.0) -> ContrastPairs:
    negative, change = torch.randn(2, N_PAIRS, WIDTH, generator=generator(seed))
    return ContrastPairs(
        name="planted",
        positive=negative + noise * change + strength * AXIS.float(),
        negative=negative,
        groups=tuple(f"pairs {number // 2}" for number in range(N_PAIRS)),
    )


def prompts(strength: float, seed: int = 1) -> ProbeData:
    labels = torch.arange(N_ITEMS) % 2
    noise = torch.randn(N_ITEMS, WIDTH, generator=generator(seed))
    return ProbeData(
        activations=noise + strength * labels[:, None] * AXIS.float(),
        labels=labels,
        groups=torch.arange(N_ITEMS) // 4,
        group_names=tuple(f"document {number}" for number in range(N_ITEMS // 4)),
    )


def test_the_direction_is_the_mean_difference_of_the_pairs():
    found = pairs(2.0)
    expected = (found.positive.double() - found.negative.double()).mean(0)
    torch.testing.assert_close(found.direction(), expected / expected.norm())
    assert float(found.direction() @ AXIS) > 0.9


def test_a_shared_direction_detects_as_well_as_two_gaussians_allow():
    # Along the axis the classes lie 2 deviations apart: AUROC = Phi(2 / sqrt 2) = .921.
    found = detect(pairs(4.0, noise=0.1), prompts(2.0))
    assert found.auroc.value == pytest.approx(0.921, abs=0.04)
    assert found.detects
    assert found.p_value == 1 / 201
    assert found.n_pairs == N_PAIRS


def test_pairs_of_another_direction_do_not_detect():
    unrelated = ContrastPairs(
        name="elsewhere",
        positive=torch.roll(pairs(4.0).positive, 7, dims=1),
        negative=torch.roll(pairs(4.0).negative, 7, dims=1),
        groups=pairs(4.0).groups,
    )
    assert not detect(unrelated, prompts(2.0)).detects


def test_the_sign_is_that_of_the_pairs_and_not_fitted():
    right, wrong = detect(pairs(4.0), prompts(2.0)), detect(pairs(-4.0, noise=1.0), prompts(2.0))
    assert right.auroc.low > 0.5
    assert wrong.auroc.high < 0.5
    assert not wrong.detects


def test_pairs_that_differ_by_noise_alone_lie_within_their_null():
    p_values = [detect(pairs(0.0, seed), prompts(2.0), n_flips=60).p_value for seed in range(12)]
    assert 0.2 < sum(p_values) / 12 < 0.8


def test_the_null_holds_nothing_of_a_planted_direction():
    turned = pairs(50.0).flipped_directions(500, generator(2))
    torch.testing.assert_close(turned.norm(dim=1), torch.ones(500, dtype=torch.float64))
    # As any unit vector of 24 components: mean square 1 / 24.
    assert float((turned @ AXIS).square().mean()) < 2 / WIDTH


def test_what_cannot_be_pairs_is_refused():
    good = pairs(1.0)
    half = {"name": "pairs", "positive": good.positive, "groups": good.groups}
    with pytest.raises(ShapeError, match=r"two halves of one shape .* got \[60, 24\], \[59, 24\]"):
        ContrastPairs(negative=good.negative[1:], **half)
    with pytest.raises(ValueRangeError, match="must differ; got 60 equal pairs"):
        ContrastPairs(negative=good.positive, **half)
    with pytest.raises(NonFiniteError, match="must be finite"):
        ContrastPairs(negative=good.negative / 0, **half)
    with pytest.raises(TooFewTokensError, match="at least one; got none"):
        ContrastPairs(
            name="none", positive=good.positive[:0], negative=good.negative[:0], groups=()
        )


def test_documents_of_the_pairs_are_not_scored():
    good = pairs(1.0)
    data = prompts(1.0)
    leaking = ContrastPairs(
        name="leak",
        positive=good.positive,
        negative=good.negative,
        groups=("document 3", *good.groups[1:]),
    )
    with pytest.raises(ValueRangeError, match=r"got 'document 3' \(1 in all\)"):
        detect(leaking, data)


def test_another_width_and_a_single_class_are_refused():
    data = prompts(1.0)
    with pytest.raises(ShapeError, match=r"width 24 must read .* got 23"):
        detect(pairs(1.0), data.with_activations(data.activations[:, 1:]))
    with pytest.raises(ValueRangeError, match="at least two classes"):
        detect(pairs(1.0), data.with_labels(torch.zeros(N_ITEMS, dtype=torch.int64)))
