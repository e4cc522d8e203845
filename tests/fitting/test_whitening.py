"""Whitening: its moments, and that folding it out of a dictionary changes nothing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from modelassay.activations.statistics import Moments
from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import BatchTopK, JumpReLU, ReLUL1, TopK
from modelassay.decompositions.sparsifiers import BatchTopKActivation
from modelassay.fitting.whitening import EIGENVALUE_FLOOR, Whitening
from modelassay.subjects.site import Site

D, WIDTH = 6, 20
RECIPES = [
    TopK(width=WIDTH, k=4),
    BatchTopK(width=WIDTH, k=4),
    ReLUL1(width=WIDTH),
    JumpReLU(width=WIDTH, target_l0=4.0, initial_threshold=0.12),
]


def correlated(tokens: int = 400) -> Tensor:
    """Rows whose standard deviations differ by a factor of a hundred, in float64."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(D, D, generator=generator, dtype=torch.float64)
    spread = torch.logspace(-1, 1, D, dtype=torch.float64)
    rows = torch.randn(tokens, D, generator=generator, dtype=torch.float64)
    return rows * spread @ mixing + 3


def dictionary_of(recipe: Recipe) -> Dictionary:
    """A dictionary in float64 whose weights are all random."""
    generator = torch.Generator().manual_seed(1)
    dictionary = recipe.build(D, D, torch.zeros(D), generator, None).double()
    with torch.no_grad():
        for weights in (dictionary.W_enc, dictionary.b_enc, dictionary.b_dec):
            weights.add_(0.3 * torch.randn(weights.shape, generator=generator))
    if isinstance(dictionary.activation, BatchTopKActivation):
        dictionary.activation.calibrate(0.4)
    return dictionary


def test_whitened_rows_have_mean_0_and_the_unit_covariance():
    x = correlated()
    whitening = Whitening.of(Moments.of(x), floor=0.0)
    white = (x - whitening.mean) @ whitening.matrix
    assert torch.allclose(white.mean(0), torch.zeros(D).double(), atol=1e-10)
    assert torch.allclose(white.T @ white / len(x), torch.eye(D).double(), atol=1e-8)


def test_moments_of_whitened_rows_are_those_of_the_rows_whitened():
    moments = Moments.of(correlated())
    whitening = Whitening.of(moments)
    measured = Moments.of((correlated() - whitening.mean) @ whitening.matrix)
    predicted = whitening.moments(moments)
    assert torch.allclose(predicted.covariance, measured.covariance, atol=1e-10)
    assert torch.allclose(predicted.mean, measured.mean, atol=1e-10)
    assert measured.mean_norm <= predicted.mean_norm <= 1.2 * measured.mean_norm


def test_inverse_undoes_the_matrix():
    whitening = Whitening.of(Moments.of(correlated()))
    identity = whitening.matrix @ whitening.inverse
    assert torch.allclose(identity, torch.eye(D).double(), atol=1e-10)
    assert torch.allclose(whitening.matrix, whitening.matrix.T, atol=1e-12)


def test_directions_below_the_floor_are_stretched_no_further():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(2)).double()
    x[:, 2] = 0
    moments = Moments.of(x)
    whitening = Whitening.of(moments)
    largest = 1 / (EIGENVALUE_FLOOR * float(moments.covariance.trace()) / 3) ** 0.5
    assert float(torch.linalg.eigvalsh(whitening.matrix).max()) == pytest.approx(largest)


def test_unit_of_the_activations_does_not_matter():
    x = correlated()
    one, other = (Whitening.of(Moments.of(unit * x)) for unit in (1.0, 1e-4))
    assert torch.allclose(1e4 * one.matrix, other.matrix, rtol=1e-8)


def test_transform_is_the_definition_in_float32():
    x = correlated()
    whitening = Whitening.of(Moments.of(x))
    expected = (x - whitening.mean) @ whitening.matrix
    assert torch.allclose(whitening.transform()(x.float()).double(), expected, atol=1e-4)


@pytest.mark.parametrize("centred", [True, False], ids=["centred", "not centred"])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_folded_dictionary_does_to_plain_activations_what_it_did_to_white_ones(
    recipe: Recipe, centred: bool
):
    x = correlated()
    whitening = Whitening.of(Moments.of(x))
    dictionary = dictionary_of(recipe)
    dictionary.apply_b_dec_to_input = centred
    white = (x - whitening.mean) @ whitening.matrix
    codes = dictionary.encode(white).dense()
    reconstruction = dictionary(white) @ whitening.inverse + whitening.mean
    whitening.fold(dictionary)
    assert (codes != 0).sum() > 100
    assert torch.allclose(dictionary(x), reconstruction, rtol=1e-8, atol=1e-8)
    norms = dictionary.directions.norm(dim=1)
    if recipe in RECIPES[:2]:
        assert torch.allclose(dictionary.encode(x).dense(), codes, atol=1e-8)
        assert float(norms.max() / norms.min()) > 2
    else:
        assert torch.allclose(norms, torch.ones(WIDTH).double())
        assert torch.equal(dictionary.encode(x).dense() != 0, codes != 0)


def test_what_cannot_be_whitened_is_refused():
    moments = Moments.of(correlated())
    with pytest.raises(NonFiniteError, match="covariance with NaN"):
        Whitening.of(replace(moments, covariance=torch.full((D, D), torch.nan).double()))
    with pytest.raises(ValueRangeError, match=r"mean variance of 0\.0"):
        Whitening.of(Moments.of(torch.ones(5, 3)))
    small = RECIPES[0].build(4, 4, torch.zeros(4), torch.Generator(), None)
    with pytest.raises(ShapeError, match="that was whitened, 6; got 4 and 4"):
        Whitening.of(moments).fold(small)
    across = dictionary_of(RECIPES[0])
    across.reads, across.writes = Site.parse("resid_mid.0"), Site.parse("mlp_out.0")
    with pytest.raises(ValueRangeError, match=r"reads resid_mid\.0 and writes mlp_out\.0"):
        Whitening.of(moments).fold(across)
