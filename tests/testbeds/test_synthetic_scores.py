"""Scores of recovery: oracles reach 1, random directions the null."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.linear import RandomDictionary
from modelassay.decompositions.recipes import TopK, unit_rows
from modelassay.decompositions.sparsifiers import ReLUActivation
from modelassay.fitting.fit import fit
from modelassay.testbeds.synthetic import SYNTH_REDUCED, SyntheticModel, synthetic_model
from modelassay.testbeds.synthetic_forest import Forest
from modelassay.testbeds.synthetic_scores import (
    mean_correlation,
    synthetic_scores,
    uniqueness,
)
from modelassay.testbeds.synthetic_source import SyntheticActivations

SAMPLES = 5000


@pytest.fixture(scope="module")
def orthogonal() -> SyntheticModel:
    """As many features as dimensions, so that a linear encoder reads each of them."""
    spec = replace(
        SYNTH_REDUCED,
        n_features=64,
        forest=Forest(roots=4, branching=3, depth=2),
        orthogonalisation_steps=0,
    )
    model = synthetic_model(spec, seed=0)
    return replace(model, directions=torch.linalg.qr(model.directions)[0])


def reader(directions: Tensor, bias: Tensor, floor: float = 1e-3) -> Dictionary:
    """A ReLU dictionary that reads with the directions that it writes."""
    return Dictionary(
        W_enc=directions.T,
        b_enc=torch.full((len(directions),), -floor),
        W_dec=directions,
        b_dec=bias,
        activation=ReLUActivation(),
    )


def test_an_oracle_scores_one(orthogonal: SyntheticModel) -> None:
    oracle = reader(orthogonal.directions, orthogonal.bias)
    scores = synthetic_scores(oracle, orthogonal, samples=20_000, generator=generator(0))
    for name in ("mcc", "f1", "precision", "recall", "uniqueness", "explained_variance"):
        assert getattr(scores, name) == pytest.approx(1, abs=2e-3), name
    assert scores.l0 == pytest.approx(scores.true_l0, abs=1e-3)
    assert scores.true_l0 == pytest.approx(float(orthogonal.expected_rates.sum()), rel=0.03)
    assert scores.dead_share == 0
    assert scores.samples == 20_000


def test_order_sign_of_directions_and_batches_do_not_matter(orthogonal: SyntheticModel) -> None:
    order = torch.randperm(64, generator=generator(0))
    flipped = reader(orthogonal.directions[order], orthogonal.bias)
    flipped.W_dec.data *= -1
    scores = synthetic_scores(flipped, orthogonal, samples=SAMPLES, generator=generator(0))
    assert (scores.mcc, scores.uniqueness) == pytest.approx((1, 1))
    assert scores.f1 > 0.99
    assert scores.explained_variance < 0


def test_counts_are_those_of_the_definition() -> None:
    model = synthetic_model(SYNTH_REDUCED, seed=0)
    random = RandomDictionary(20, 64, 5, generator=generator(3))
    found = synthetic_scores(random, model, samples=3000, generator=generator(4))
    codes = model.codes(3000, generator(4))
    x = model.activations(codes)
    calls, truth = random.encode(x).dense() != 0, codes.dense() > 0
    cosines = random.directions @ model.directions.T
    f1, precision, recall = [], [], []
    for latent in range(20):
        feature = int(cosines[latent].abs().argmax())
        tp = int((calls[:, latent] & truth[:, feature]).sum())
        fp = int((calls[:, latent] & ~truth[:, feature]).sum())
        fn = int((~calls[:, latent] & truth[:, feature]).sum())
        precision.append(tp / (tp + fp) if tp + fp else 0.0)
        recall.append(tp / (tp + fn) if tp + fn else 0.0)
        f1.append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0)
    assert found.f1 == pytest.approx(sum(f1) / 20)
    assert found.precision == pytest.approx(sum(precision) / 20)
    assert found.recall == pytest.approx(sum(recall) / 20)
    variance = (x - x.mean(0)).square().sum()
    left = (x - random(x)).square().sum()
    assert found.explained_variance == pytest.approx(1 - float(left / variance), abs=1e-4)
    assert found.l0 == pytest.approx(float(calls.sum()) / 3000)
    assert found.dead_share == pytest.approx(float((~calls.any(0)).float().mean()))


def test_random_directions_score_the_null() -> None:
    model = synthetic_model(SYNTH_REDUCED, seed=0)
    nulls = torch.tensor(
        [mean_correlation(unit_rows(128, 64, generator(s)), model.directions) for s in range(10)]
    )
    random = RandomDictionary(128, 64, 4, generator=generator(99), mean=model.bias)
    scores = synthetic_scores(random, model, samples=SAMPLES, generator=generator(0))
    assert scores.mcc == pytest.approx(float(nulls.mean()), abs=4 * float(nulls.std()))
    # |cosine| of two random directions in 64 dimensions is 0.1 on average; the largest of 512
    # is near sqrt(2 ln 512 / 64) = 0.44.
    assert 0.3 < scores.mcc < 0.45
    assert scores.f1 < 0.2


def test_repeated_directions_lower_uniqueness_and_mcc(orthogonal: SyntheticModel) -> None:
    twice = torch.cat([orthogonal.directions[:8], orthogonal.directions[:8]])
    assert uniqueness(twice, orthogonal.directions) == 0.5
    assert mean_correlation(twice, orthogonal.directions) == pytest.approx(0.5, abs=1e-3)


def test_fewer_latents_than_features_are_not_punished(orthogonal: SyntheticModel) -> None:
    some = orthogonal.directions[:8]
    assert mean_correlation(some, orthogonal.directions) == pytest.approx(1)
    assert mean_correlation(orthogonal.directions, some) == pytest.approx(1)


def test_latents_that_never_fire_are_dead_and_detect_nothing(orthogonal: SyntheticModel) -> None:
    half = reader(orthogonal.directions, orthogonal.bias)
    half.b_enc.data[32:] = -1e6
    scores = synthetic_scores(half, orthogonal, samples=SAMPLES, generator=generator(0))
    assert scores.dead_share == 0.5
    assert scores.f1 == pytest.approx(0.5, abs=0.02)
    assert scores.mcc == pytest.approx(1)


def test_a_fitted_dictionary_recovers_more_than_a_random_one() -> None:
    model = synthetic_model(SYNTH_REDUCED, seed=0)
    source = SyntheticActivations.of(model, n_fit=40_000, n_heldout=2000)
    fitted = fit(TopK(width=64, k=4), source, tokens=80_000, batch_tokens=512, learning_rate=3e-3)
    random = RandomDictionary(64, 64, 4, generator=generator(0), mean=model.bias)
    found, null = (
        synthetic_scores(one, model, samples=SAMPLES, generator=generator(0))
        for one in (fitted, random)
    )
    assert found.mcc > null.mcc + 0.1
    assert found.f1 > null.f1 + 0.1
    assert found.explained_variance > null.explained_variance


def test_wrong_widths_and_too_few_samples_are_refused() -> None:
    model = synthetic_model(SYNTH_REDUCED, seed=0)
    narrow = RandomDictionary(8, 32, 2, generator=generator(0))
    with pytest.raises(ShapeError, match="width 64; got 32 and 32"):
        synthetic_scores(narrow, model, generator=generator(0))
    right = RandomDictionary(8, 64, 2, generator=generator(0))
    with pytest.raises(TooFewTokensError, match="at least 2 samples; got 1"):
        synthetic_scores(right, model, samples=1, generator=generator(0))
