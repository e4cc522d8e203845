"""Archetypal decoders against their dense definition in float64, and their constraints."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import (
    Archetypal,
    BatchTopK,
    Gated,
    JumpReLU,
    Matryoshka,
    TopK,
)
from modelassay.fitting.archetypal import ArchetypalDecoder, archetypal
from modelassay.fitting.centroids import centroids
from modelassay.fitting.learner import Learner
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale

D, WIDTH, K, TOKENS, N, VARIANCE = 7, 24, 3, 40, 12, 5.0
RECIPES: list[Recipe] = [
    Archetypal(width=WIDTH, k=K, candidates=N, relaxation=0.3),
    Archetypal(width=WIDTH, k=K, candidates=N, relaxation=0.0, candidates_are="sample"),
    Archetypal(width=WIDTH, k=K, candidates=2 * WIDTH),
]


def rows(seed: int) -> Tensor:
    return 1.0 + torch.randn(TOKENS, D, generator=generator(seed))


def learner_of(recipe: Recipe, *, steps: int = 10, seed: int = 0) -> Learner:
    """A learner that has moved from its start."""
    learner = Learner(
        name="under test",
        dictionary=recipe.build(D, D, torch.ones(D), generator(1), None),
        training=training_of(recipe),
        schedule=Schedule(steps=100),
        learning_rate=3e-2,
        dead_window=10_000,
        data=DataScale(
            mean=torch.ones(D),
            total_variance=VARIANCE,
            draw=lambda n: 1.0 + torch.randn(n, D, generator=generator(9)),
        ),
        workspace=torch.empty(9 * WIDTH),
        seed=seed,
    )
    for step in range(steps):
        learner.step(rows(step), step)
    return learner


def made_of(learner: Learner) -> ArchetypalDecoder:
    made = learner.weights._parametrisation  # pyright: ignore[reportPrivateUsage]
    assert isinstance(made, ArchetypalDecoder)
    return made


def raw_of(learner: Learner) -> dict[str, Tensor]:
    """The definition's parameters in float64: mixing weights, offsets, scale, free encoder."""
    made = made_of(learner)
    return {name: p.detach().double().requires_grad_() for name, p in made.named_parameters()}


def dense_loss(raw: dict[str, Tensor], candidates: Tensor, b_dec: Tensor, x: Tensor) -> Tensor:
    """D = (W C + Λ) e^m; the k largest π |D| of a token; decoded by D itself."""
    decoder = (raw["mixtures"] @ candidates.double() + raw["offsets"]) * raw["log_scale"].exp()
    pre = (x - b_dec) @ raw["W_enc"] + raw["b_enc"]
    contributed = pre * decoder.norm(dim=1)
    kept = pre.relu() * (contributed >= contributed.topk(K).values[:, -1:])
    return (x - b_dec - kept @ decoder).square().sum() / (TOKENS * VARIANCE)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_loss_and_gradients_of_all_parameters_equal_the_dense_definition(recipe: Recipe):
    learner = learner_of(recipe)
    made, raw = made_of(learner), raw_of(learner)
    b_dec = learner.dictionary.b_dec.detach().double().requires_grad_()
    x = rows(50)
    expected = dense_loss(raw, made.candidates, b_dec, x.double())
    expected.backward()

    loss = learner.training.objectives[0](learner.forward(x, 10))
    learner.dictionary.zero_grad()
    loss.backward()
    weights = made()
    made.zero_grad()
    torch.autograd.backward(
        list(weights.values()), [learner.dictionary.get_parameter(name).grad for name in weights]
    )
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, wanted in raw.items():
        found = made.get_parameter(name).grad
        assert found is not None
        assert wanted.grad is not None
        assert torch.allclose(found.double(), wanted.grad, atol=1e-6, rtol=1e-3), name
        # A scale of the decoder changes the made encoder alone, as all the others do.
        assert wanted.grad.count_nonzero() > 0, name


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_weights_mix_and_offsets_are_bounded_after_every_step(recipe: Recipe):
    learner = learner_of(recipe)
    raw = {name: tensor.detach() for name, tensor in raw_of(learner).items()}
    assert isinstance(recipe, Archetypal)
    assert bool((raw["mixtures"] >= 0).all())
    assert torch.allclose(raw["mixtures"].sum(1), torch.ones(WIDTH).double(), atol=1e-5)
    assert float(raw["offsets"].norm(dim=1).max()) <= recipe.relaxation + 1e-6
    if recipe.relaxation == 0.3:
        assert float(raw["offsets"].norm(dim=1).max()) > 0.29


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_what_is_exported_has_unit_rows_and_the_same_values(recipe: Recipe):
    learner = learner_of(recipe)
    raw, made, dictionary = raw_of(learner), made_of(learner), learner.dictionary
    decoder = (raw["mixtures"] @ made.candidates.double() + raw["offsets"]).detach()
    decoder = decoder * raw["log_scale"].detach().exp()
    lengths = decoder.norm(dim=1)
    assert torch.allclose(dictionary.directions.norm(dim=1), torch.ones(WIDTH), atol=1e-6)
    assert torch.allclose(dictionary.W_dec.double() * lengths.unsqueeze(1), decoder, atol=1e-5)
    assert torch.allclose(dictionary.W_enc.double(), raw["W_enc"] * lengths, atol=1e-5)
    assert torch.allclose(dictionary.b_enc.double(), raw["b_enc"] * lengths, atol=1e-6)


def test_without_relaxation_directions_are_in_the_cone_of_the_candidates():
    learner = learner_of(Archetypal(width=WIDTH, k=K, candidates=3, relaxation=0.0))
    candidates = made_of(learner).candidates.double()
    rows_of = learner.dictionary.directions.double()
    weights = torch.linalg.lstsq(candidates.t(), rows_of.t()).solution
    assert torch.allclose(weights.t() @ candidates, rows_of, atol=1e-5)
    assert float(weights.min()) > -1e-5


def test_it_starts_with_candidates_as_directions_and_an_encoder_that_is_their_transpose():
    learner = learner_of(Archetypal(width=WIDTH, k=K, candidates=N), steps=0)
    dictionary, candidates = learner.dictionary, made_of(learner).candidates
    unit = candidates / candidates.norm(dim=1, keepdim=True)
    largest = (dictionary.directions @ unit.t()).max(1).values
    # 24 latents of 12 candidates: single ones, then means of two different ones.
    assert torch.allclose(largest[:N], torch.ones(N), atol=1e-5)
    assert float(largest[N:].max()) < 1 - 1e-4
    assert torch.allclose(dictionary.W_enc.t(), dictionary.W_dec, atol=1e-5)
    assert float(candidates.square().sum(1).mean()) == pytest.approx(1.0, rel=1e-5)


def test_a_row_of_which_nothing_is_left_becomes_an_even_mixture():
    made = made_of(learner_of(RECIPES[0], steps=0))
    made.mixtures.data[3] = -1.0
    made.project()
    assert torch.allclose(made.mixtures[3], torch.full((N,), 1 / N))


def test_candidates_are_centred_points_of_the_data_where_a_sample_is_asked_for():
    recipe = Archetypal(width=WIDTH, k=K, candidates=N, candidates_are="sample")
    dictionary = recipe.build(D, D, torch.ones(D), generator(1), None)
    sample = 1.0 + torch.randn(50, D, generator=generator(2))
    made = archetypal(recipe).make(dictionary, sample, generator(3))
    assert isinstance(made, ArchetypalDecoder)
    centred = sample[:N] - 1.0
    expected = centred / centred.square().sum(1).mean().sqrt()
    assert torch.allclose(made.candidates, expected, atol=1e-6)


@given(st.integers(0, 2**32))
def test_centroids_find_clusters_that_are_far_apart(seed: int):
    draw = generator(seed)
    centres = 100 * torch.eye(5)
    points = centres.repeat(40, 1) + torch.randn(200, 5, generator=draw)
    found = centroids(points, 5, draw)
    nearest = torch.cdist(centres, found).min(1).values
    # Lloyd's algorithm may stop at a poor optimum, but its centres are means of points: one of
    # two clusters lies half-way between their centres.
    assert bool(((nearest < 2) | (nearest > 50)).all())
    error = torch.cdist(points, found).min(1).values.square().sum()
    first = points[torch.randperm(200, generator=draw)[:5]]
    assert float(error) <= float(torch.cdist(points, first).min(1).values.square().sum()) + 1e-3


def test_one_centroid_is_the_mean_and_as_many_as_points_are_the_points():
    points = torch.randn(30, 4, generator=generator(1))
    (mean,) = centroids(points, 1, generator(2))
    assert torch.allclose(mean, points.mean(0), atol=1e-6)
    all_of_them = centroids(points, 30, generator(2))
    assert torch.equal(all_of_them.sort(0).values, points.sort(0).values)


def test_a_centre_of_no_points_moves_to_the_farthest_point():
    # Twice the same point is drawn as a centre: one of them is nearest to nothing.
    points = torch.tensor([[0.0], [0.0], [0.0], [9.0]])
    for seed in range(10):
        found = centroids(points, 2, generator(seed))
        assert sorted(found.flatten().tolist()) == [0.0, 9.0]


@pytest.mark.parametrize(
    "inner", [BatchTopK(width=WIDTH, k=K), JumpReLU(width=WIDTH, target_l0=3.0)], ids=str
)
def test_any_sparsifier_will_do(inner: Recipe):
    learner = learner_of(Archetypal.of(inner, candidates=N, relaxation=0.1))
    wanted = training_of(inner)
    assert learner.training.objectives == wanted.objectives
    assert learner.training.bandwidth == wanted.bandwidth
    assert isinstance(learner.dictionary, Dictionary)
    assert learner.dictionary.name.startswith("Archetypal ")
    assert "fel2025" in learner.dictionary.references


def test_it_may_be_nested():
    training = training_of(Matryoshka.of(Archetypal(width=WIDTH, k=K, candidates=N)))
    assert training.prefixes[-1] == WIDTH
    assert training.parametrisation is not None


def test_it_refuses_what_has_no_decoder_of_its_own():
    for inner in (Gated(width=WIDTH), TopK(width=WIDTH, k=K, free_decoder=True)):
        with pytest.raises(ValueRangeError, match="whose weights are made of others"):
            training_of(Archetypal.of(inner, candidates=N))


def test_a_frozen_decoder_is_the_baseline_of_the_inner_recipe():
    recipe = Archetypal(width=WIDTH, k=K, frozen_decoder=True)
    assert training_of(recipe).parametrisation is None
    one, other = (
        kind.build(D, D, torch.ones(D), generator(1), None) for kind in (recipe, recipe.fitted)
    )
    assert torch.equal(one.W_dec, other.W_dec)
    assert one.frozen_decoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": 1}, "candidates must be at least 2"),
        ({"relaxation": -1.0}, "relaxation must be finite and at least 0"),
        (
            {"inner": TopK(width=WIDTH + 1, k=K)},
            f"must be those of the inner recipe, \\({WIDTH + 1}, False",
        ),
    ],
)
def test_it_refuses_settings_that_mean_nothing(changes: dict[str, object], message: str):
    with pytest.raises(ValueRangeError, match=message):
        Archetypal(**{"width": WIDTH, "k": K} | changes)  # pyright: ignore[reportArgumentType]


def test_it_must_have_activations_and_enough_of_them():
    recipe = RECIPES[0]
    dictionary = recipe.build(D, D, torch.ones(D), generator(1), None)
    with pytest.raises(ValueRangeError, match="got only their moments"):
        Learner(
            name="under test",
            dictionary=dictionary,
            training=training_of(recipe),
            schedule=Schedule(steps=100),
            learning_rate=1e-3,
            dead_window=100,
            data=DataScale(mean=torch.ones(D), total_variance=VARIANCE),
            workspace=torch.empty(9 * WIDTH),
        )
    assert isinstance(recipe, Archetypal)
    with pytest.raises(TooFewTokensError, match=f"candidates, {N}; got 5"):
        archetypal(recipe).make(dictionary, torch.zeros(5, D), generator(0))


def test_a_checkpoint_keeps_the_candidates():
    one, other = learner_of(RECIPES[0]), learner_of(RECIPES[0], steps=0, seed=1)
    assert not torch.equal(made_of(one).candidates, made_of(other).candidates)
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    assert torch.equal(made_of(one).candidates, made_of(other).candidates)
    assert torch.equal(one.dictionary.W_dec, other.dictionary.W_dec)
