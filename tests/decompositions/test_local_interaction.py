"""The local interaction basis from given moments: its algebra, its limits, its errors."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import NonFiniteError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.core.references import REFERENCES
from modelassay.decompositions.linear import PCA
from modelassay.decompositions.local_interaction import LocalInteractionBasis
from modelassay.subjects.site import Site

D = 6
SITE = Site(role="resid_post", layer=2)
seeds = st.integers(0, 2**32)


def draw_activations(seed, n_tokens=200):
    """Correlated, with a mean far from zero."""
    source = generator(seed)
    mixing = torch.randn(D, D, generator=source, dtype=torch.float64)
    mixing += 2 * torch.eye(D)
    return torch.randn(n_tokens, D, generator=source, dtype=torch.float64) @ mixing + 3


def draw_reader(seed, n_outputs):
    """Rows that are read: the Jacobian of a linear reader, the same everywhere."""
    return torch.randn(n_outputs, D, generator=generator(seed + 1), dtype=torch.float64)


def moments_of(x):
    return SimpleNamespace(mean=x.mean(0), covariance=torch.cov(x.t(), correction=0))


def basis_of(x, reader, **options):
    options = {"dtype": torch.float64, "threshold": 1e-12} | options
    return LocalInteractionBasis.from_moments(moments_of(x), reader.T @ reader, **options)


@given(seeds, st.integers(1, 2 * D))
def test_codes_are_uncorrelated_with_the_used_variances(seed, n_outputs):
    x, reader = draw_activations(seed), draw_reader(seed, n_outputs)
    basis = basis_of(x, reader)
    z = basis.encode(x).dense()
    scale = float(basis.used_variance[0])
    torch.testing.assert_close(z.mean(0), torch.zeros(basis.width).double(), atol=1e-8, rtol=0)
    covariance = torch.cov(z.t(), correction=0).reshape(basis.width, basis.width)
    torch.testing.assert_close(covariance, basis.used_variance.diag(), atol=1e-8 * scale, rtol=1e-6)
    assert basis.used_variance.tolist() == sorted(basis.used_variance.tolist(), reverse=True)


@given(seeds, st.integers(1, 2 * D))
def test_used_variances_sum_to_the_output_variance(seed, n_outputs):
    x, reader = draw_activations(seed), draw_reader(seed, n_outputs)
    of_output = (x @ reader.T).var(0, correction=0).sum()
    torch.testing.assert_close(basis_of(x, reader).used_variance.sum(), of_output)


@given(seeds, st.integers(1, 2 * D))
def test_the_jacobian_by_the_codes_is_orthonormal(seed, n_outputs):
    basis = basis_of(draw_activations(seed), draw_reader(seed, n_outputs))
    by_code = draw_reader(seed, n_outputs) @ basis.directions.T
    identity = torch.eye(min(n_outputs, D)).double()
    torch.testing.assert_close(by_code.T @ by_code, identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(basis.directions @ basis.covectors.T, identity, atol=1e-5, rtol=0)


@given(seeds, st.integers(1, D - 1))
def test_a_reconstruction_keeps_what_is_read_and_is_a_projection(seed, n_outputs):
    x, reader = draw_activations(seed), draw_reader(seed, n_outputs)
    basis = basis_of(x, reader)
    reconstruction = basis(x)
    torch.testing.assert_close(reconstruction @ reader.T, x @ reader.T, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(basis(reconstruction), reconstruction, atol=1e-5, rtol=1e-5)
    # Orthogonal in the metric of the inverse covariance: what is left is uncorrelated with it.
    left = x - reconstruction
    crossed = left.T @ (reconstruction - x.mean(0)) / len(x)
    assert crossed.abs().max() < 1e-6 * basis.used_variance[0].clamp(min=1) * x.var()
    assert left.norm() > 0.01 * x.norm()


@given(seeds)
def test_where_everything_is_used_the_reconstruction_is_exact(seed):
    x = draw_activations(seed)
    torch.testing.assert_close(basis_of(x, draw_reader(seed, D))(x), x, atol=1e-6, rtol=1e-6)


@given(seeds)
def test_one_read_covector_is_the_covector_and_its_pattern_the_direction(seed):
    """The model reads w: the encoder's column is along w, the direction along ``covariance w``."""
    x, reader = draw_activations(seed), draw_reader(seed, 1)
    basis, w = basis_of(x, reader), reader[0]
    pattern = torch.cov(x.t(), correction=0) @ w
    cosine = torch.nn.functional.cosine_similarity
    assert basis.width == 1
    assert abs(cosine(basis.covectors[0], w, dim=0)) == pytest.approx(1, abs=1e-9)
    assert abs(cosine(basis.directions[0], pattern, dim=0)) == pytest.approx(1, abs=1e-9)
    assert basis.covectors[0].abs().max() == basis.covectors[0].max()


@given(seeds)
def test_a_model_that_reads_all_alike_has_the_principal_components(seed):
    x = draw_activations(seed)
    basis = basis_of(x, torch.eye(D).double(), dtype=torch.float32)
    pca = PCA.from_moments(moments_of(x))
    torch.testing.assert_close(basis.used_variance, pca.variances, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(basis.directions, pca.directions, atol=1e-4, rtol=0)
    torch.testing.assert_close(basis.covectors, pca.directions, atol=1e-4, rtol=0)


@given(seeds, st.integers(1, 2 * D))
def test_no_change_of_basis_changes_the_codes(seed, n_outputs):
    """Activations x A, read by A⁻¹ of the reader: the model is the same, and so are the codes."""
    x, reader = draw_activations(seed), draw_reader(seed, n_outputs)
    change = torch.eye(D).double() + 0.3 * draw_reader(seed + 2, D) / D**0.5
    before = basis_of(x, reader)
    after = basis_of(x @ change, reader @ torch.linalg.inv(change).T)
    torch.testing.assert_close(after.used_variance, before.used_variance, rtol=1e-6, atol=1e-9)
    z, moved = before.encode(x).dense(), after.encode(x @ change).dense()
    aligned = (z * moved).sum(0).sign()  # the sign of a latent is free
    scale = before.used_variance[0].sqrt()
    torch.testing.assert_close(moved * aligned, z, rtol=1e-4, atol=1e-5 * float(scale))


def test_principal_components_do_change_with_the_basis():
    """So that the test above says something: a change of scale moves PCA's codes."""
    x = draw_activations(0)
    stretch = torch.tensor([10.0, 1, 1, 1, 1, 1]).double()
    before, after = (PCA.from_moments(moments_of(rows)) for rows in (x, x * stretch))
    z, moved = before.encode(x).dense()[:, 0], after.encode(x * stretch).dense()[:, 0]
    assert torch.corrcoef(torch.stack([z, moved]))[0, 1].abs() < 0.99


def test_directions_that_do_not_vary_or_are_not_used_are_dropped():
    x = draw_activations(0)
    x[:, 2] = 7
    reader = draw_reader(0, D)
    reader[:, 4] = 0
    basis = basis_of(x, reader, threshold=1e-9)
    assert basis.width == 4
    assert basis.covectors[:, [2, 4]].abs().max() < 1e-6


def test_a_threshold_is_relative_to_the_largest():
    x, reader = draw_activations(0), draw_reader(0, D)
    used = basis_of(x, reader).used_variance
    between = float((used[2] * used[3]).sqrt() / used[0])
    for scale in (1, 1e-3, 1e3):
        basis = basis_of(x * scale, reader, threshold=max(between, 1e-3))
        assert basis.width == 3
        assert basis.threshold == max(between, 1e-3)


def test_it_finds_no_circuit_in_superposition():
    """800 squares of ten ReLUs each on 400 neurons, two active at once: a basis is too small.

    The mean, over the circuits, of the largest cosine of a covector with what the circuit reads
    is hardly that of random directions, and below that of the neurons.
    """
    n_neurons, n_circuits, n_slots, n_active, n_tokens = 400, 800, 10, 2, 4000
    rng = generator(0)
    slots = torch.rand(n_circuits, n_neurons, generator=rng).argsort(1)[:, :n_slots]
    knots = torch.linspace(0, 0.8, 5).repeat(2).double()
    signs = torch.tensor([1.0] * 5 + [-1.0] * 5).double()
    active = torch.rand(n_tokens, n_circuits, generator=rng).argsort(1)[:, :n_active]
    x = torch.rand(n_tokens, n_active, generator=rng, dtype=torch.float64) * 2 - 1
    inputs = torch.zeros(n_tokens, n_neurons, dtype=torch.float64)
    for circuit, value in zip(active.t(), x.t(), strict=True):
        inputs.scatter_add_(1, slots[circuit], signs * value[:, None] - knots)
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    design = torch.cat([(signs * grid - knots).relu(), torch.ones_like(grid)], dim=1)
    solved = torch.linalg.lstsq(design, grid.square(), driver="gelsd").solution[:n_slots, 0]
    reader = torch.zeros(n_circuits, n_neurons).double()
    reader.scatter_(1, slots, solved.expand(n_circuits, n_slots))

    def score(rows):
        rows = torch.nn.functional.normalize(rows, dim=1)
        cosines = rows @ torch.nn.functional.normalize(reader, dim=1).t()
        return float(cosines.abs().amax(0).mean())

    basis = basis_of(inputs.relu(), reader, threshold=1e-5)
    random = torch.randn(1600, n_neurons, generator=rng, dtype=torch.float64)
    assert basis.width == n_neurons
    assert score(random) == pytest.approx(0.177, abs=0.005)
    assert score(torch.eye(n_neurons).double()) == pytest.approx(0.343, abs=0.005)
    assert score(torch.linalg.eigh(reader.t() @ reader)[1].t()) == pytest.approx(0.201, abs=0.005)
    assert score(basis.covectors) == pytest.approx(0.20, abs=0.01)


@pytest.mark.parametrize("threshold", [0.0, -1e-5, 1.0, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueRangeError, match="threshold must be above 0 and below 1; got"):
        basis_of(draw_activations(0), draw_reader(0, 1), threshold=threshold)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_constant_activations_are_refused(value):
    x = torch.full((1000, D), value, dtype=torch.float64)
    with pytest.raises(ValueRangeError, match="must vary; got the same in every row"):
        basis_of(x, draw_reader(0, 1))


def test_a_reader_of_what_does_not_vary_is_refused():
    x, reader = draw_activations(0), torch.zeros(1, D).double()
    x[:, 0], reader[0, 0] = 7, 1
    with pytest.raises(ValueRangeError, match="must depend on activations that vary"):
        basis_of(x, reader)


def test_what_is_not_finite_is_refused():
    x, reader = draw_activations(0), draw_reader(0, 1)
    with pytest.raises(NonFiniteError, match="gradients must be finite"):
        basis_of(x, reader * torch.inf)
    x[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="activations must be finite"):
        basis_of(x, reader)


def test_it_says_what_it_is():
    basis = basis_of(draw_activations(0), draw_reader(0, 2), site=SITE)
    assert basis.name == "local interaction basis 2"
    assert basis.reads == basis.writes == SITE
    assert (basis.width, basis.d_in, basis.d_out) == (2, D, D)
    assert set(basis.references) <= set(REFERENCES)
