"""Neurons, principal components and random directions."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.core.references import REFERENCES
from modelassay.decompositions.linear import PCA, Neurons, RandomDictionary
from modelassay.subjects.site import Site

SITE = Site(role="resid_post", layer=2)
seeds = st.integers(0, 2**32)


def draw_activations(seed, n_tokens=200, d=6):
    """Correlated, with a mean far from zero."""
    source = generator(seed)
    mixing = torch.randn(d, d, generator=source)
    return torch.randn(n_tokens, d, generator=source) @ mixing + 3


def moments_of(x):
    return SimpleNamespace(mean=x.mean(0), covariance=torch.cov(x.t(), correction=0))


@given(seeds)
def test_neurons_are_the_entries_themselves(seed):
    x = draw_activations(seed, 5)
    neurons = Neurons(6, SITE)
    assert torch.equal(neurons.encode(x).dense(), x)
    torch.testing.assert_close(neurons(x), x)


@given(seeds)
def test_all_components_reconstruct_exactly(seed):
    x = draw_activations(seed)
    pca = PCA.from_moments(moments_of(x), site=SITE)
    torch.testing.assert_close(pca(x), x, atol=1e-4, rtol=1e-4)


@given(seeds)
def test_components_are_orthonormal_and_sorted_by_variance(seed):
    x = draw_activations(seed)
    pca = PCA.from_moments(moments_of(x))
    torch.testing.assert_close(pca.directions @ pca.directions.t(), torch.eye(6), atol=1e-5, rtol=0)
    z = pca.encode(x).dense()
    variances = z.var(0, correction=0)
    torch.testing.assert_close(variances, pca.variances, atol=1e-3, rtol=1e-3)
    assert pca.variances.tolist() == sorted(pca.variances.tolist(), reverse=True)
    covariances = torch.cov(z.t(), correction=0) - variances.diag()
    assert covariances.abs().max() < 1e-3 * variances[0]


def test_the_first_component_is_the_known_direction():
    direction = torch.tensor([0.6, 0.0, -0.8])
    x = torch.randn(500, 1, generator=generator(0)) * 10 * direction
    x = x + 0.1 * torch.randn(500, 3, generator=generator(1)) + 5
    first = PCA.from_moments(moments_of(x)).directions[0]
    # Of the two signs, that which makes the largest entry positive.
    torch.testing.assert_close(first, -direction, atol=0.01, rtol=0)


def test_a_constant_coordinate_is_a_component_without_variance():
    x = draw_activations(0)
    x[:, 2] = 7
    pca = PCA.from_moments(moments_of(x))
    assert pca.variances[-1] == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(pca(x), x, atol=1e-4, rtol=1e-4)


@given(seeds, st.integers(1, 6))
def test_k_keeps_the_values_of_largest_magnitude(seed, k):
    x = draw_activations(seed)
    every, some = (PCA.from_moments(moments_of(x), n).encode(x) for n in (None, k))
    assert some.indices.shape[1] == k
    dense = every.dense()
    bound = dense.abs().topk(k).values[:, -1:]
    assert torch.equal(some.dense(), dense * (dense.abs() >= bound))


def test_k_outside_the_components_is_refused():
    with pytest.raises(ValueRangeError, match="number of components, 6; got 7"):
        PCA.from_moments(moments_of(draw_activations(0)), 7)


def test_random_directions_are_read_by_their_own_transpose():
    x = draw_activations(0)
    random = RandomDictionary(64, 6, 4, generator=generator(1), mean=x.mean(0).double(), site=SITE)
    torch.testing.assert_close(random.directions.norm(dim=1), torch.ones(64))
    codes = random.encode(x)
    assert codes.l0().max() == 4
    projections = (x - x.mean(0)) @ random.directions.t()
    torch.testing.assert_close(codes.values, projections.gather(1, codes.indices))
    assert random.name == "random 64 (k=4)"
    assert random.reads == SITE


def test_without_a_mean_random_directions_start_from_zero():
    random = RandomDictionary(64, 6, 4, generator=generator(1))
    assert random.bias.abs().sum() == 0


def test_baselines_cite_known_papers():
    for method in (Neurons, PCA, RandomDictionary):
        assert method.references
        assert set(method.references) <= set(REFERENCES)
