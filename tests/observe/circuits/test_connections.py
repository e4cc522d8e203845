"""A unit's strongest inputs, and how well linear weights predict the network."""

import pytest
import torch
from torch import nn

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.circuits.connections import connections, fidelity, strongest
from modelassay.observe.circuits.expansion import expanded_weights
from modelassay.observe.visualize.image_input import UNIT
from tests.observe.circuits.models import chain, seeded


def kernels():
    found = torch.zeros(4, 3, 3)
    found[0] = 1.0
    found[1] = -2.0
    found[2, 1, 1] = 0.5
    return found


def test_inputs_are_sorted_by_norm_with_their_signs():
    found = connections(kernels())
    assert [each.channel for each in found] == [1, 0, 2, 3]
    assert [each.strength for each in found] == [6.0, 3.0, 0.5, 0.0]
    assert [each.total for each in found] == [-18.0, 9.0, 0.5, 0.0]
    assert sum(each.share for each in found) == pytest.approx(1)
    excitatory, inhibitory = strongest(found, 2)
    assert [each.channel for each in excitatory] == [0, 2]
    assert [each.channel for each in inhibitory] == [1]


def test_a_scale_of_the_sources_activity_changes_the_order():
    found = connections(kernels(), torch.tensor([1.0, 0.1, 100.0, 1.0]))
    assert [each.channel for each in found][:2] == [2, 0]
    with pytest.raises(ShapeError, match="one number for each of 4 input channels"):
        connections(kernels(), torch.ones(3))


def images(count=4):
    return torch.rand(count, 3, 20, 20, generator=generator(1))


def test_a_linear_network_is_predicted_exactly_and_not_by_the_weights_of_another_channel():
    module = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3)))
    weights = expanded_weights(module, "0", "2")
    found = fidelity(module, weights, images(), image_input=UNIT)
    assert torch.allclose(found.correlation, torch.ones(6), atol=1e-6)
    assert float(found.other.max()) < 0.99
    assert found.n_changes == 4 * 7 * 7


def test_closed_rectifiers_lower_the_prediction():
    module = chain()
    with torch.no_grad():
        module[2].bias.fill_(-0.3)
    weights = expanded_weights(module, "input", "4", [2])
    found = fidelity(module, weights, images(), image_input=UNIT)
    assert 0 < float(found.correlation) < 0.98
    assert bool(found.other.isnan().all())


def test_a_dead_channel_has_no_correlation():
    module = chain()
    with torch.no_grad():
        module[4].weight[1] = 0
    found = fidelity(module, expanded_weights(module, "1", "4"), images(), image_input=UNIT)
    assert found.correlation.isnan().tolist() == [False, True, False, False, False, False]


def test_what_is_no_set_of_images_is_refused():
    module = chain()
    weights = expanded_weights(module, "1", "4")
    with pytest.raises(TooFewTokensError, match="at least 2 images; got 1"):
        fidelity(module, weights, images(1), image_input=UNIT)
    with pytest.raises(ValueRangeError, match="must have values in 0 … 1"):
        fidelity(module, weights, images() + 1, image_input=UNIT)
