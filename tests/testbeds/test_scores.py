import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from modelassay.testbeds.scores import (
    Scores,
    beyond_chance,
    corrected,
    correlation,
    cosine,
    discrimination,
    graph_terms,
    match,
)


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_correlation_is_numpys_and_nought_for_a_constant() -> None:
    values, scalars = rows(50, 3), rows(50, 2, seed=1)
    values[:, 2] = 7.3
    expected = torch.corrcoef(torch.cat([values, scalars], 1).T.double())[:3, 3:].abs().float()
    found = correlation(values, scalars)
    assert torch.allclose(found[:2], expected[:2], atol=1e-6)
    assert found[2].eq(0).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), latents=st.integers(1, 5), features=st.integers(1, 5))
def test_match_is_the_best_assignment_by_brute_force(
    seed: int, latents: int, features: int
) -> None:
    from itertools import permutations

    similarity = torch.rand(
        latents, features, generator=torch.Generator().manual_seed(seed)
    ).double()
    small, large = sorted((latents, features))
    table = similarity if latents <= features else similarity.T
    best = max(
        sum(float(table[i, p[i]]) for i in range(small)) for p in permutations(range(large), small)
    )
    assert match(similarity) == pytest.approx(best / features)


def test_match_beyond_chance_is_clipped() -> None:
    assert corrected(0.6, 0.2) == pytest.approx(0.5)
    assert corrected(0.1, 0.2) == 0
    assert math.isnan(corrected(1.0, 1.0))


def test_the_graph_score_counts_equal_latents_and_ignores_scale() -> None:
    covectors = torch.eye(3)[:2]
    directions = torch.zeros(5, 3)
    directions[:4, 0] = 1  # four latents feed the first mechanism, one the second
    directions[4, 1] = 1
    values = torch.ones(10, 5)
    active = torch.ones(10, 2, dtype=torch.bool)
    assert graph_terms(values, directions, covectors, active).tolist() == pytest.approx([0.25, 1])
    scale = torch.tensor([1.0, 2, 3, 4, 5])
    same = graph_terms(values * scale, directions / scale[:, None], covectors, active)
    assert same.tolist() == pytest.approx([0.25, 1])


def test_a_mechanism_that_no_latent_reaches_has_no_node() -> None:
    found = graph_terms(
        torch.ones(4, 1), torch.tensor([[1.0, 0]]), torch.eye(2), torch.ones(4, 2).bool()
    )
    assert found.tolist() == [1, 0]


def test_the_graph_score_looks_only_where_a_mechanism_is_on() -> None:
    values = torch.tensor([[1.0, 0], [1, 1]])
    active = torch.tensor([[True], [False]])
    assert graph_terms(values, torch.ones(2, 1), torch.ones(1, 1), active).tolist() == [1]


def test_discrimination_is_one_for_the_faithful_and_chance_for_the_blind() -> None:
    assert discrimination([[0.9, 0.1], [0.2, 0.8]]) == 1
    blind = discrimination([[0.9, 0.1, 0.3]] * 3)
    assert blind == pytest.approx(1 / 3)
    assert beyond_chance(blind, 3) == pytest.approx(0)
    assert discrimination([[0.5, 0.5], [0.5, 0.5]]) == pytest.approx(0.5)  # ties are split
    assert math.isnan(beyond_chance(1.0, 1))


def test_what_was_found_has_a_name() -> None:
    def named(model: float, activations: float) -> str:
        return Scores(match_model=model, match_activations=activations, s_graph=1.0).found

    assert named(0.9, 0.1) == "model"
    assert named(0.1, 0.9) == "activations"
    assert named(0.9, 0.9) == "both"
    assert named(0.1, 0.1) == "neither"
    assert named(0.5, 0.5) == "partly"
    assert math.isnan(Scores(match_model=0.0, match_activations=0.0, s_graph=1.0).v)


def test_cosine_ignores_sign_and_length() -> None:
    found = cosine(torch.tensor([[2.0, 0]]), torch.tensor([[-3.0, 0], [1, 1]]))
    assert found[0].tolist() == pytest.approx([1, 2**-0.5])
