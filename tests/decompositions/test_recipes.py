"""Untrained dictionaries: their starts, and what recipes refuse."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.core.references import REFERENCES
from modelassay.decompositions.recipes import (
    RECIPES,
    AbsTopK,
    AnnealedL1,
    Archetypal,
    BatchTopK,
    Gated,
    GroupMax,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    OrthogonalMatchingPursuit,
    ReLUL1,
    TopK,
    unit_rows,
)
from modelassay.subjects.site import Site

SITE = Site(role="resid_post", layer=2)
ALL = [
    TopK(width=64, k=4),
    BatchTopK(width=64, k=4),
    ReLUL1(width=64),
    AbsTopK(width=64, k=4),
    GroupMax(width=64, k=4),
    Matryoshka(width=64, k=4),
    JumpReLU(width=64),
    Gated(width=64),
    AnnealedL1(width=64),
    MatchingPursuit(width=64, k=4),
    OrthogonalMatchingPursuit(width=64, k=4),
    Archetypal(width=64, k=4, candidates=48),
]


def build(recipe, seed=0, d=8):
    mean = torch.arange(d, dtype=torch.float64)
    return recipe.build(d, d, mean, generator(seed), SITE)


@pytest.mark.parametrize("recipe", ALL)
@pytest.mark.parametrize("frozen", [False, True])
def test_the_encoder_starts_as_the_decoders_transpose(recipe, frozen):
    recipe = replace(recipe, frozen_decoder=frozen)
    dictionary = build(recipe)
    assert torch.equal(dictionary.W_enc, dictionary.W_dec.t())
    length = 0.1 if isinstance(recipe, ReLUL1 | AnnealedL1) and not frozen else 1.0
    torch.testing.assert_close(dictionary.W_dec.norm(dim=1), torch.full((64,), length))
    assert dictionary.b_enc.abs().sum() == 0
    assert torch.equal(dictionary.b_dec, torch.arange(8.0))
    assert dictionary.reads == dictionary.writes == SITE
    assert dictionary.recipe == recipe


@pytest.mark.parametrize("recipe", ALL)
def test_a_frozen_decoder_alone_does_not_train(recipe):
    dictionary = build(replace(recipe, frozen_decoder=True))
    trained = {name for name, p in dictionary.named_parameters() if p.requires_grad}
    weights = {name for name in trained if not name.startswith("activation.")}
    # A pursuit's encoder is the decoder, without a bias.
    pursues = isinstance(recipe, MatchingPursuit | OrthogonalMatchingPursuit)
    assert weights == ({"b_dec"} if pursues else {"W_enc", "b_enc", "b_dec"})
    assert dictionary.frozen_decoder
    assert "frozen decoder" in dictionary.name
    assert not build(recipe).frozen_decoder


@pytest.mark.parametrize("recipe", ALL)
def test_the_seed_decides_the_directions(recipe):
    assert torch.equal(build(recipe, seed=1).W_dec, build(recipe, seed=1).W_dec)
    assert not torch.equal(build(recipe, seed=1).W_dec, build(recipe, seed=2).W_dec)


def test_every_recipe_and_every_dictionary_cites_known_papers():
    ours = {kind for kind in RECIPES.values() if kind.__module__.startswith("modelassay.")}
    assert {type(recipe) for recipe in ALL} == ours
    for recipe in ALL:
        assert set(recipe.references) <= set(REFERENCES)
        assert build(recipe).references == recipe.references
        frozen = build(replace(recipe, frozen_decoder=True)).references
        assert frozen == (*recipe.references, "korznikov2026")


def test_unit_rows_are_spread_over_the_sphere():
    rows = unit_rows(20_000, 3, generator(0))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(20_000))
    # The second moments of the uniform distribution are 1/3 on the diagonal; 5 standard errors.
    torch.testing.assert_close(rows.t() @ rows / 20_000, torch.eye(3) / 3, atol=0.012, rtol=0)


@pytest.mark.parametrize("kind", [TopK, BatchTopK, AbsTopK, GroupMax, Matryoshka])
@pytest.mark.parametrize("k", [0, 65])
def test_k_outside_the_width_is_refused(kind, k):
    with pytest.raises(ValueRangeError, match=f"k must be between 1 and the width, 64; got {k}"):
        kind(width=64, k=k)


@pytest.mark.parametrize("kind", RECIPES.values())
def test_a_width_of_nothing_is_refused(kind):
    with pytest.raises(ValueRangeError, match="width must be at least 1; got 0"):
        kind(width=0)


@pytest.mark.parametrize("coefficient", [-1.0, float("nan"), float("inf")])
def test_penalties_that_are_no_penalty_are_refused(coefficient):
    with pytest.raises(ValueRangeError, match="l1_coefficient must be finite and at least 0"):
        ReLUL1(width=8, l1_coefficient=coefficient)


def test_a_dictionary_between_two_sites_is_refused():
    with pytest.raises(ShapeError, match=r"must be the same; got 8, 6 and \[6\]"):
        TopK(width=64, k=4).build(8, 6, torch.zeros(6), generator(0), SITE)


def test_the_usual_prefixes_are_those_of_the_paper():
    paper = (2048, 6144, 14336, 30720, 65536)
    assert Matryoshka(width=65536).prefixes == paper
    assert Matryoshka(width=8, k=2).prefixes == (1, 3, 8)


@pytest.mark.parametrize("prefixes", [(4, 2, 64), (0, 64), (4, 4, 64), (4, 32), (65,)])
def test_prefixes_that_do_not_nest_are_refused(prefixes):
    with pytest.raises(ValueRangeError, match=r"must ascend from at least 1 to the width, 64; got"):
        Matryoshka(width=64, k=4, prefixes=prefixes)


def test_groups_of_unequal_size_are_refused():
    with pytest.raises(ValueRangeError, match=r"width must be a multiple of k=5; got 64. Use 60"):
        GroupMax(width=64, k=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_l0": 0.0}, "target_l0 must be above 0 and at most the width, 64; got 0"),
        ({"target_l0": 65.0}, "at most the width, 64; got 65"),
        ({"bandwidth": 0.0}, "bandwidth must be finite and above 0; got 0"),
        ({"threshold_rate": float("inf")}, "threshold_rate must be finite and above 0; got inf"),
        ({"coefficient": -1.0}, "coefficient must be finite and at least 0; got -1"),
        ({"initial_threshold": float("nan")}, "initial_threshold must be finite"),
        ({"bandwidth": float("nan")}, "bandwidth must be finite and above 0; got nan"),
    ],
)
def test_thresholds_that_cannot_be_learned_are_refused(options, message):
    with pytest.raises(ValueRangeError, match=message):
        JumpReLU(width=64, **options)


def test_thresholds_start_in_units_of_a_coordinates_root_mean_square():
    threshold = build(JumpReLU(width=64, initial_threshold=0.01), d=16).activation.threshold
    torch.testing.assert_close(threshold.detach(), torch.full((64,), 0.01))
