"""Synthetic activations: what is known of their features holds in what is drawn."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modelassay.activations.statistics import Moments
from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.core.randomness import derived, generator
from modelassay.testbeds.synthetic import (
    SYNTH_16K,
    SYNTH_REDUCED,
    SyntheticModel,
    SyntheticSpec,
    synthetic_model,
)
from modelassay.testbeds.synthetic_directions import overlap_gradient
from modelassay.testbeds.synthetic_forest import Forest
from modelassay.testbeds.synthetic_source import SITE, SyntheticActivations, synthetic_rows

SAMPLES = 60_000
NO_TREES = Forest(roots=0, branching=1, depth=0)


@pytest.fixture(scope="module")
def model() -> SyntheticModel:
    return synthetic_model(SYNTH_REDUCED, seed=0)


@pytest.fixture(scope="module")
def values(model: SyntheticModel) -> Tensor:
    return model.codes(SAMPLES, generator(1)).dense()


def independent(**changes: object) -> SyntheticSpec:
    return replace(SYNTH_REDUCED, correlation=(0, 0.0), orthogonalisation_steps=0, **changes)


def rates_of(spec: SyntheticSpec, samples: int = SAMPLES) -> tuple[Tensor, Tensor]:
    """Measured rates, and by how many standard errors they are off the expected ones."""
    model = synthetic_model(spec, seed=0)
    counts = model.codes(samples, generator(1)).firing_counts().double()
    expected = model.expected_rates
    error = (expected * (1 - expected) / samples).sqrt()
    return counts / samples, (counts / samples - expected) / error


def test_features_without_trees_follow_zipfs_law() -> None:
    spec = independent(forest=NO_TREES, spread=(0.0, 0.0))
    rates, off = rates_of(spec)
    ranks = torch.arange(1, 513).double()
    powers = (ranks**-0.5 - 512**-0.5) / (1 - 512**-0.5)
    assert torch.allclose(spec.wanted_rates, 5e-4 + (0.4 - 5e-4) * powers)
    assert spec.wanted_rates[[0, -1]].tolist() == pytest.approx([0.4, 5e-4])
    # 512 standard normal numbers: none is beyond 5, and their squares average to 1.
    assert off.abs().max() < 5
    assert float(off.square().mean()) == pytest.approx(1, abs=0.3)
    slope = torch.linalg.lstsq(
        torch.stack([powers, torch.ones(512)], 1).double(), rates[:, None]
    ).solution
    assert slope[:, 0].tolist() == pytest.approx([0.3995, 5e-4], rel=0.02, abs=3e-4)


@pytest.mark.parametrize("exclusive", [True, False])
def test_features_in_trees_fire_as_often_as_derived(exclusive: bool) -> None:
    forest = Forest(roots=4, branching=4, depth=3, exclusive=exclusive)
    _, off = rates_of(independent(forest=forest))
    assert off.abs().max() < 5
    assert float(off.square().mean()) == pytest.approx(1, abs=0.3)


def test_compensation_is_exact_without_competition() -> None:
    forest = Forest(roots=2, branching=3, depth=2, exclusive=False)
    wanted = torch.linspace(0.4, 0.01, forest.n_features, dtype=torch.float64)
    given = forest.compensated(wanted)
    assert given.max() < 1
    assert torch.allclose(forest.rates(given), wanted)


def test_survival_among_siblings_is_that_of_the_enumeration() -> None:
    forest = Forest(roots=1, branching=5, depth=1)
    given = torch.tensor([0.5, 0.9, 0.2, 0.6, 0.1, 1.0], dtype=torch.float64)
    expected = [0.0] * 5
    for pattern in range(2**5):
        drawn = [i for i in range(5) if pattern >> i & 1]
        chance = math.prod(
            float(given[1 + i] if i in drawn else 1 - given[1 + i]) for i in range(5)
        )
        for i in drawn:
            expected[i] += 0.5 * chance / len(drawn)
    assert forest.rates(given)[1:].tolist() == pytest.approx(expected)


def test_the_l0_of_the_16k_size_is_the_published_one() -> None:
    # About 34, and about 25 for the 4,096 most frequent features (SAELens' page on the benchmark).
    deviations = torch.full((16_384,), 0.5, dtype=torch.float64)
    means = torch.linspace(5, 4, 16_384, dtype=torch.float64)
    given = SYNTH_16K.forest.compensated(SYNTH_16K.wanted_rates)
    rates = SYNTH_16K.forest.rates(given * torch.special.ndtr(means / deviations))
    assert SYNTH_16K.forest.n_features == 10_880
    assert float(rates.sum()) == pytest.approx(34.5, abs=0.05)
    assert float(rates[:4096].sum()) == pytest.approx(25.2, abs=0.05)


def test_the_16k_size_draws_as_many_features_as_published() -> None:
    model = synthetic_model(replace(SYNTH_16K, d=8, orthogonalisation_steps=0), seed=0)
    l0 = model.codes(2000, generator(0)).l0()
    assert float(l0.mean()) == pytest.approx(34.4, abs=1)


def test_measured_l0_is_the_expected_one(model: SyntheticModel, values: Tensor) -> None:
    # Correlations leave each root's rate, but move children's a little through their parents.
    measured = float((values > 0).sum()) / SAMPLES
    assert measured == pytest.approx(float(model.expected_rates.sum()), rel=0.02)


def test_children_fire_only_with_their_parents(values: Tensor) -> None:
    forest = SYNTH_REDUCED.forest
    parents = forest.parents(512)
    children = (parents >= 0).nonzero()[:, 0]
    assert len(children) == 320
    fires = values > 0
    assert bool(fires[:, children].any(0).all())
    assert not bool((fires[:, children] & ~fires[:, parents[children]]).any())


def test_siblings_never_fire_together_unless_they_may(values: Tensor) -> None:
    forest = SYNTH_REDUCED.forest
    families = torch.arange(16, 336).view(-1, 4)
    assert int((values > 0)[:, families].sum(2).max()) == 1
    free = independent(forest=replace(forest, exclusive=False))
    together = synthetic_model(free, seed=0).codes(5000, generator(0)).dense() > 0
    assert int(together[:, families].sum(2).max()) > 1


def test_children_are_scaled_by_their_parents_in_version_two_alone() -> None:
    for scaled in (True, False):
        forest = replace(SYNTH_REDUCED.forest, scaled=scaled)
        model = synthetic_model(independent(forest=forest, spread=(0.5, 0.0)), seed=0)
        found = model.codes(20_000, generator(0)).dense()
        parent, child = found[:, 0], found[:, 16]
        both = child > 0
        assert int(both.sum()) > 500
        own = child[both] / model.means[16]
        if scaled:
            own = own / (parent[both] / model.means[0])
        related = torch.corrcoef(torch.stack([own, parent[both]]))[0, 1]
        assert float(own.mean()) == pytest.approx(1, abs=0.02)
        assert abs(float(related)) < 0.15
        raw = torch.corrcoef(torch.stack([child[both], parent[both]]))[0, 1]
        assert (float(raw) > 0.5) == scaled


def drawn_densely(model: SyntheticModel, samples: int, draw: torch.Generator) -> Tensor:
    """The definition: all features of every sample are drawn, then struck out from the roots."""
    n = model.spec.n_features
    shared = torch.randn(samples, model.factors.shape[1], generator=draw)
    own = torch.randn(samples, n, generator=draw) * (1 - model.factors.square().sum(1)).sqrt()
    latent = shared @ model.factors.T + own
    noise = torch.randn(samples, n, generator=draw) * model.deviations
    drawn = latent > -torch.special.ndtri(model.given).float()
    values = drawn * (model.means + noise).clamp(min=0)
    forest = model.spec.forest
    for level in forest.levels[1:]:
        for start in range(level.start, level.stop, forest.branching):
            parent = int(forest.parents(n)[start])
            family = values[:, start : start + forest.branching]
            family *= (values[:, parent] / model.means[parent])[:, None]
            chance = torch.rand(family.shape, generator=draw)
            winner = torch.where(family > 0, chance, -1.0).argmax(1, keepdim=True)
            family *= torch.arange(forest.branching) == winner
    return values


def test_drawing_from_the_roots_is_drawing_all_and_striking_out() -> None:
    spec = SyntheticSpec(
        n_features=16,
        d=4,
        forest=Forest(roots=2, branching=2, depth=2),
        frequencies=(0.5, 0.2),
        correlation=(3, 0.4),
        orthogonalisation_steps=0,
    )
    model = synthetic_model(spec, seed=3)
    quick = model.codes(200_000, generator(0)).dense()
    slow = drawn_densely(model, 200_000, generator(1))
    for found in (lambda v: v, lambda v: (v > 0).float()):
        one, other = found(quick), found(slow)
        second = (one.T @ one / len(one), other.T @ other / len(other))
        # Products of values below about 30 on 200,000 samples: errors of about 0.02 at most.
        assert torch.allclose(one.mean(0), other.mean(0), atol=0.03)
        assert torch.allclose(*second, atol=0.01 * float(second[1].max()))


def test_latent_gaussians_have_a_correlation_matrix_of_the_rank_asked_for() -> None:
    spec = replace(SYNTH_REDUCED, correlation=(7, 0.1), orthogonalisation_steps=0)
    model = synthetic_model(spec, seed=0)
    matrix = model.correlations.double()
    assert torch.equal(matrix.diagonal(), torch.ones(512).double())
    assert torch.equal(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    shared = matrix - torch.diag(1 - model.factors.double().square().sum(1))
    assert int(torch.linalg.matrix_rank(shared, atol=1e-4)) == 7
    off = matrix[~torch.eye(512).bool()]
    assert float(off.std()) == pytest.approx(0.01 * 7**0.5, rel=0.15)


def test_firings_are_correlated_as_the_gaussians_say() -> None:
    spec = SyntheticSpec(
        n_features=6,
        d=4,
        forest=NO_TREES,
        frequencies=(0.5, 0.5),
        correlation=(2, 0.5),
        spread=(0.0, 0.0),
        orthogonalisation_steps=0,
    )
    model = synthetic_model(spec, seed=1)
    fires = model.codes(200_000, generator(0)).dense() > 0
    found = torch.corrcoef(fires.float().T)
    # Two Gaussians of correlation r are both positive with probability 1/4 + asin(r) / 2 pi.
    expected = 2 / math.pi * torch.asin(model.correlations)
    assert float(expected.fill_diagonal_(0).abs().max()) > 0.2
    assert torch.allclose(found.fill_diagonal_(0), expected, atol=0.01)


def test_factors_too_large_for_a_unit_variance_are_shrunk() -> None:
    spec = replace(SYNTH_REDUCED, correlation=(25, 1.0), orthogonalisation_steps=0)
    squares = synthetic_model(spec, seed=0).factors.square().sum(1)
    assert float(squares.max()) == pytest.approx(0.99, abs=1e-4)


def test_activations_are_the_sum_of_features_and_bias(
    model: SyntheticModel, values: Tensor
) -> None:
    codes = model.codes(300, generator(1))
    expected = codes.dense() @ model.directions + model.bias
    assert torch.allclose(model.activations(codes), expected, atol=1e-4)
    assert torch.equal(model.rows(300, generator(1)), model.activations(codes))
    assert float(model.bias.norm()) == pytest.approx(0.5)


def test_directions_are_unit_and_overlap_less_than_random_ones(model: SyntheticModel) -> None:
    random = synthetic_model(replace(SYNTH_REDUCED, orthogonalisation_steps=0), seed=0).directions
    assert torch.allclose(model.directions.norm(dim=1), torch.ones(512))

    def overlap(rows: Tensor) -> float:
        return float((rows @ rows.T).square().sum()) - 512

    assert overlap(model.directions) < 0.9 * overlap(random)
    # No 512 unit rows in 64 dimensions have less in all than a tight frame.
    assert overlap(model.directions) >= 512**2 / 64 - 512 - 1e-2


def test_the_gradient_of_the_overlap_is_autograds() -> None:
    rows = torch.randn(7, 3, generator=generator(0), dtype=torch.float64, requires_grad=True)
    gram = rows @ rows.T
    off = gram - torch.diag(gram.diagonal())
    (off.square().sum() + 7 * (gram.diagonal() - 1).square().sum()).backward()
    assert rows.grad is not None
    assert torch.allclose(overlap_gradient(rows.detach()), rows.grad)


def test_one_seed_gives_one_model_and_one_generator_one_draw() -> None:
    one, same = (synthetic_model(SYNTH_REDUCED, seed=4) for _ in range(2))
    assert one.fingerprint() == same.fingerprint()
    assert synthetic_model(SYNTH_REDUCED, seed=5).fingerprint() != one.fingerprint()
    assert torch.equal(one.rows(50, generator(2)), same.rows(50, generator(2)))
    draw = generator(2)
    assert not torch.equal(one.rows(50, draw), one.rows(50, draw))


def test_no_samples_are_no_rows(model: SyntheticModel) -> None:
    assert model.rows(0, generator(0)).shape == (0, 64)
    assert model.codes(0, generator(0)).n_tokens == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_draws_the_same_distribution(model: SyntheticModel, values: Tensor) -> None:
    there = model.to("cuda").codes(SAMPLES, generator(0))
    rates = there.firing_counts().cpu().double() / SAMPLES
    expected = (values > 0).double().mean(0)
    assert torch.allclose(rates, expected, atol=0.015)


def test_a_stream_is_resumed_with_the_very_samples(model: SyntheticModel) -> None:
    source = SyntheticActivations.of(model, n_fit=20_000, n_heldout=100).select("fit")
    stream = source.stream(batch_tokens=3000, generator=derived(0, "order"))
    for _ in range(4):
        next(stream)
    again = source.stream(batch_tokens=3000, generator=derived(1, "order"))
    again.load_state_dict(stream.state_dict())
    for _ in range(5):  # over the end of the epoch of six batches
        assert torch.equal(next(stream), next(again))


def test_epochs_and_sides_are_different_samples(model: SyntheticModel) -> None:
    source = SyntheticActivations.of(model, n_fit=1024, n_heldout=1024)
    fit = source.select("fit").stream(batch_tokens=1024, generator=generator(0))
    heldout = source.select("heldout").stream(batch_tokens=1024, generator=generator(0))
    drawn = [next(fit), next(fit), next(heldout)]
    # Samples of which no feature fires are all the bias.
    drawn = [rows[(rows != model.bias).any(1)] for rows in drawn]
    assert min(map(len, drawn)) > 900
    for i, one in enumerate(drawn):
        for other in drawn[i + 1 :]:
            assert not bool((one[:, None, 0] == other[None, :, 0]).any())


def test_a_source_of_hundreds_of_millions_of_samples_needs_no_memory(
    model: SyntheticModel,
) -> None:
    source = SyntheticActivations.of(model)
    assert source.select("fit").n_tokens == 200_000_000
    assert source.n_tokens == 200_500_000
    stream = source.select("fit").stream(batch_tokens=1024, generator=generator(0))
    assert next(stream).shape == (1024, 64)


def test_moments_are_those_of_the_samples(model: SyntheticModel) -> None:
    found = SyntheticActivations.of(model).moments(SITE)
    other = Moments.of(model.rows(40_000, generator(9)))
    assert torch.allclose(found.mean, other.mean, atol=0.1)
    assert float(found.covariance.trace()) == pytest.approx(
        float(other.covariance.trace()), rel=0.02
    )


def test_plain_rows_hold_a_fifth_out(model: SyntheticModel) -> None:
    rows = synthetic_rows(model, 500, seed=0)
    assert rows.select("heldout").n_tokens == 100
    assert rows.subject_fingerprint == model.fingerprint()


def test_what_cannot_be_is_refused_with_advice(model: SyntheticModel) -> None:
    with pytest.raises(ValueRangeError, match=r"hold the 10880 features .* got 512 and 768"):
        SyntheticSpec(n_features=512)
    with pytest.raises(ValueRangeError, match=r"frequencies must fall .* got 0.1 to 0.4"):
        SyntheticSpec(frequencies=(0.1, 0.4))
    with pytest.raises(ValueRangeError, match="means must be above 0"):
        SyntheticSpec(means=(0.0, 1.0))
    with pytest.raises(ValueRangeError, match=r"branching >= 1 .* got 1, 0 and 2"):
        Forest(roots=1, branching=0, depth=2)
    with pytest.raises(TooFewTokensError, match="got n_fit=0"):
        SyntheticActivations.of(model, n_fit=0)
