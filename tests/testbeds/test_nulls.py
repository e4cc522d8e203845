"""The quick computation of chance against the definition, draw by draw."""

import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.decompositions.selection import topk
from modelassay.testbeds.nulls import (
    _directions,
    null_match_of_directions,
    null_match_of_values,
    nulls_of_largest,
    nulls_of_projections,
)
from modelassay.testbeds.scores import cosine, match, standardised

N, D, WIDTH = 400, 6, 32


def by_definition(activations: torch.Tensor, scalars: torch.Tensor, l0: int) -> float:
    centred = activations - activations.mean(0)
    means = []
    for draws in _directions(centred, WIDTH, 3):
        for sparse in (False, True):
            found = []
            for draw in draws:
                values = centred @ draw.T
                if sparse and l0 < WIDTH:
                    kept, indices = topk(values, l0)
                    values = torch.zeros_like(values).scatter(1, indices, kept.clamp(min=0))
                both = torch.cat([values, scalars], 1).T.double()
                found.append(match(torch.corrcoef(both)[:WIDTH, WIDTH:].abs().nan_to_num()))
            means.append(sum(found) / len(found))
    return max(means)


@pytest.mark.parametrize("l0", [1, 5, WIDTH])
def test_chance_is_what_random_directions_match(l0: int) -> None:
    activations = torch.randn(N, D, generator=generator(0)) * torch.arange(1.0, D + 1) + 4
    scalars = torch.randn(N, 5, generator=generator(1)) + activations[:, :5]
    found = null_match_of_values(activations, scalars, width=WIDTH, l0=l0, seed=3)
    assert found == pytest.approx(by_definition(activations, scalars, l0), abs=1e-6)


def test_several_truths_at_once_give_what_each_gives_alone() -> None:
    activations = torch.randn(N, D, generator=generator(0))
    truths = [standardised(torch.randn(N, n, generator=generator(n))) for n in (2, 5)]
    for together in (
        lambda t: nulls_of_projections(activations, t, width=WIDTH, seed=0),
        lambda t: nulls_of_largest(activations, t, width=WIDTH, l0=4, seed=0),
    ):
        assert together(truths) == [together([truth])[0] for truth in truths]


def test_chance_by_directions_grows_with_their_number() -> None:
    activations = torch.randn(N, D, generator=generator(0))
    covectors = torch.randn(3, D, generator=generator(1))
    few, many = (
        null_match_of_directions(activations, covectors, width=width, seed=0) for width in (3, 300)
    )
    assert few < many < 1
    assert match(cosine(covectors, covectors)) == pytest.approx(1)
