import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.core.randomness import generator
from modelassay.decompositions.linear import Neurons, RandomDictionary
from modelassay.evidence.reconstruction import (
    explained_variance,
    explained_variance_evidence,
    reconstruction,
)


def data(seed: int, n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    rng = generator(seed)
    x = torch.randn(n, 5, generator=rng, dtype=torch.float64) * torch.tensor([3, 1, 1, 0.5, 0.1])
    return x, x + 0.5 * torch.randn(n, 5, generator=rng, dtype=torch.float64)


@given(st.integers(0, 1000))
def test_matches_the_definition(seed: int):
    x, x_hat = data(seed)
    rows, errors = x.numpy(), (x - x_hat).numpy()
    expected = 1 - (errors**2).sum() / ((rows - rows.mean(0)) ** 2).sum()
    assert explained_variance(x, x_hat) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 1000), st.floats(-1e4, 1e4), st.floats(1e-3, 1e3))
def test_a_common_shift_and_scale_change_nothing(seed: int, shift: float, scale: float):
    x, x_hat = data(seed)
    moved = explained_variance(scale * x + shift, scale * x_hat + shift)
    assert moved == pytest.approx(explained_variance(x, x_hat), rel=1e-5)


def test_sae_bench_numbers_that_went_wrong_there():
    # True fraction of variance unexplained 0.25 at an offset of 3 sigma, and at scale 20.
    rng = generator(0)
    x = torch.randn(20_000, 8, generator=rng)
    x_hat = x + 0.5 * torch.randn(20_000, 8, generator=rng)
    for offset, scale in ((3.0, 1.0), (0.0, 20.0)):
        value = explained_variance(scale * (x + offset), scale * (x_hat + offset))
        assert value == pytest.approx(0.75, abs=0.01)


def test_the_mean_scores_zero_and_the_truth_one():
    x, _ = data(0)
    assert explained_variance(x, x.mean(0).expand_as(x)) == pytest.approx(0, abs=1e-12)
    assert explained_variance(x, x) == 1


def test_the_interval_holds_the_value_and_resamples_the_mean_too():
    x, x_hat = data(1, n=200)
    document = torch.arange(200) // 10
    evidence = explained_variance_evidence(x.float(), x_hat.float(), document, generator(0))
    assert evidence.low[0] < evidence.value[0] < evidence.high[0]
    assert evidence.null[0] == 0
    assert evidence.n.tolist() == [200]
    # Documents that differ in their mean: resampling must move the mean along with them.
    far = torch.repeat_interleave(torch.randn(20, 5, generator=generator(2)) * 10, 10, dim=0)
    x, x_hat = far + x.float(), far + x_hat.float()
    between = explained_variance_evidence(x, x_hat, document, generator(0))
    drawn = torch.randint(20, (20,), generator=generator(3)).tolist()
    rows = torch.cat([torch.nonzero(document == d)[:, 0] for d in drawn])
    resampled = explained_variance(x[rows], x_hat[rows])
    assert between.low[0] - 0.01 < resampled < between.high[0] + 0.01


def test_neurons_reconstruct_everything_and_noise_too():
    x = torch.randn(300, 6, generator=generator(0)) @ torch.randn(6, 6, generator=generator(1)) + 4
    document = torch.arange(300) // 20
    evidence = {e.name: e for e in reconstruction(Neurons(6), x, document, generator(2))}
    assert set(evidence) == {"explained_variance", "l0", "dead_share", "dense_share"}
    assert evidence["explained_variance"].value[0] == pytest.approx(1)
    assert evidence["explained_variance"].null[0] == pytest.approx(1)
    assert evidence["l0"].value[0] == 6
    assert evidence["dead_share"].value[0] == 0
    assert evidence["dense_share"].value[0] == 1


def test_structure_beyond_the_covariance_lifts_it_above_the_null():
    # Activations on the dictionary's own directions, one at a time: not at all Gaussian.
    dictionary = RandomDictionary(64, 16, 1, generator=generator(0))
    rng = generator(1)
    picked = torch.randint(64, (800,), generator=rng)
    x = dictionary.directions.detach()[picked] * (1 + torch.rand(800, 1, generator=rng))
    evidence = reconstruction(dictionary, x, torch.arange(800) // 40, generator(2))[0]
    assert evidence.value[0] > 0.99
    assert evidence.null[0] < 0.6


def test_messages():
    x, x_hat = data(0)
    with pytest.raises(ShapeError, match=r"must have the shape of x, \(60, 5\); got \(59, 5\)"):
        explained_variance(x, x_hat[:59])
    with pytest.raises(TooFewTokensError, match="activations that vary; got 1 tokens"):
        explained_variance(x[:1], x_hat[:1])
