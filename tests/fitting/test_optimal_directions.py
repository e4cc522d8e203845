import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.fitting.optimal_directions import learn_dictionary


def test_a_planted_dictionary_is_learnt() -> None:
    planted = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator(6)), dim=1)
    places = torch.rand(3000, 24, generator=generator(7)).topk(2, dim=1).indices
    values = 0.5 + torch.rand(3000, 2, generator=generator(8))
    x = torch.zeros(3000, 24).scatter(1, places, values) @ planted
    learnt = learn_dictionary(x, width=36, k=2, steps=15, generator=generator(9))
    best = (planted @ learnt.T).abs().amax(1)
    assert float(best.mean()) > 0.9
    start = learn_dictionary(x, width=36, k=2, steps=0, generator=generator(9))
    assert float(best.mean()) > float((planted @ start.T).abs().amax(1).mean()) + 0.05


def test_fewer_inputs_than_atoms_are_refused() -> None:
    with pytest.raises(ValueRangeError, match="for each of the 3 atoms; got 2"):
        learn_dictionary(torch.eye(4)[:2], width=3, k=1, steps=1, generator=generator(0))
