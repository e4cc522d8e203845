"""Selection by what latents contribute, against its dense definition in float64."""

import pytest
import torch
from torch import Tensor

from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import AbsTopK, BatchTopK, GroupMax, Matryoshka, TopK
from modelassay.fitting.learner import Learner
from modelassay.fitting.norm_aware import NormAware
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale

D, WIDTH, K, TOKENS, VARIANCE = 7, 24, 3, 40, 5.0
RECIPES: list[Recipe] = [
    TopK(width=WIDTH, k=K, free_decoder=True),
    BatchTopK(width=WIDTH, k=K, free_decoder=True),
    AbsTopK(width=WIDTH, k=K, free_decoder=True),
    GroupMax(width=WIDTH, k=K, free_decoder=True),
    Matryoshka(width=WIDTH, k=K, free_decoder=True, prefixes=(6, WIDTH)),
]


def rows(seed: int) -> Tensor:
    return torch.randn(TOKENS, D, generator=generator(seed))


def learner_of(recipe: Recipe) -> Learner:
    """A learner that has moved from its start, so that norms differ."""
    learner = Learner(
        name="under test",
        dictionary=recipe.build(D, D, torch.zeros(D), generator(1), None),
        training=training_of(recipe),
        schedule=Schedule(steps=100),
        learning_rate=3e-2,
        dead_window=10_000,
        data=DataScale(mean=torch.zeros(D), total_variance=VARIANCE),
        workspace=torch.empty(9 * WIDTH),
    )
    for step in range(10):
        learner.step(rows(step), step)
    return learner


def dense_loss(recipe: Recipe, raw: dict[str, Tensor], b_dec: Tensor, x: Tensor) -> Tensor:
    """The definition: select by π |d|, decode the values over |d| by rows of free length."""
    norms = raw["W_dec"].norm(dim=1)
    contributed = ((x - b_dec) @ raw["W_enc"] + raw["b_enc"]) * norms
    match recipe:
        case TopK():
            kept = contributed.relu() * (contributed >= contributed.topk(K).values[:, -1:])
        case AbsTopK():
            kept = contributed * (contributed.abs() >= contributed.abs().topk(K).values[:, -1:])
        case GroupMax():
            groups = contributed.relu().view(TOKENS, K, -1)
            kept = (groups * (groups >= groups.amax(2, keepdim=True))).view(TOKENS, WIDTH)
        case _:
            bound = contributed.flatten().topk(K * TOKENS).values[-1]
            kept = contributed.relu() * (contributed >= bound)
    values = kept / norms
    prefixes = recipe.prefixes if isinstance(recipe, Matryoshka) else (WIDTH,)
    left = [(x - b_dec - values[:, :m] @ raw["W_dec"][:m]).square().sum() for m in prefixes]
    return torch.stack(left).mean() / (TOKENS * VARIANCE)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_loss_and_gradients_of_the_raw_parameters_equal_the_dense_definition(recipe: Recipe):
    learner = learner_of(recipe)
    names = ("W_enc", "b_enc", "W_dec")
    raw = {
        name: learner.parameters[f"parametrisation.{name}"].detach().double().requires_grad_()
        for name in names
    }
    assert (raw["W_dec"].detach().norm(dim=1) - 1).abs().max() > 0.05
    b_dec = learner.dictionary.b_dec.detach().double().requires_grad_()
    x = rows(50)
    expected = dense_loss(recipe, raw, b_dec, x.double())
    expected.backward()

    made = NormAware(learner.dictionary)
    with torch.no_grad():
        for name in names:
            made.get_parameter(name).copy_(raw[name])
    loss = learner.training.objectives[0](learner.forward(x, 10))
    learner.dictionary.zero_grad()
    loss.backward()
    weights = made()
    torch.autograd.backward(
        list(weights.values()), [learner.dictionary.get_parameter(name).grad for name in weights]
    )
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name in names:
        found, wanted = made.get_parameter(name).grad, raw[name].grad
        assert found is not None
        assert wanted is not None
        assert wanted.count_nonzero() > 0
        assert torch.allclose(found.double(), wanted, atol=1e-6, rtol=1e-4), name
    assert learner.dictionary.b_dec.grad is not None
    assert torch.allclose(learner.dictionary.b_dec.grad.double(), b_dec.grad, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_what_is_exported_has_unit_rows_and_the_same_values(recipe: Recipe):
    learner = learner_of(recipe)
    dictionary = learner.dictionary
    norms = dictionary.directions.norm(dim=1)
    assert torch.allclose(norms, torch.ones(WIDTH), atol=1e-6)
    raw = {
        name.removeprefix("parametrisation."): parameter.detach().double()
        for name, parameter in learner.parameters.items()
    }
    lengths = raw["W_dec"].norm(dim=1)
    assert torch.allclose(dictionary.W_enc.double(), raw["W_enc"] * lengths, atol=1e-6)
    assert torch.allclose(dictionary.b_enc.double(), raw["b_enc"] * lengths, atol=1e-6)
    assert torch.allclose(dictionary.W_dec.double() * lengths.unsqueeze(1), raw["W_dec"], atol=1e-6)


def test_it_starts_as_the_recipe_does():
    free, bound = (TopK(width=WIDTH, k=K, free_decoder=free) for free in (True, False))
    one, other = (r.build(D, D, torch.zeros(D), generator(1), None) for r in (free, bound))
    assert isinstance(one, Dictionary)
    for name, tensor in NormAware(one)().items():
        assert torch.allclose(tensor, other.get_parameter(name), atol=1e-6)
