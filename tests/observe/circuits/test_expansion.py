"""Weights between feature maps, against compositions of convolutions written out."""

import pytest
import torch
from torch import nn

from modelassay.core.errors import (
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.observe.circuits.expansion import direct_weights, expanded_weights
from modelassay.subjects.vision.squeezenet import SqueezeNet
from tests.observe.circuits.models import Branches, Gated, chain, seeded


def composed(second, first):
    """Loops over every weight: what one convolution after another has at each offset."""
    outs, mids, rows, _ = second.shape
    _, ins, more, _ = first.shape
    found = torch.zeros(outs, ins, rows + more - 1, rows + more - 1, dtype=torch.float64)
    for out in range(outs):
        for mid in range(mids):
            for row in range(rows):
                for column in range(rows):
                    weight = second[out, mid, row, column].double()
                    patch = found[out, :, row : row + more, column : column + more]
                    patch += weight * first[mid].double()
    return found


def test_expanded_weights_are_the_composition_of_the_convolutions():
    module = chain()
    found = expanded_weights(module, "input", "4")
    inner = composed(module[2].weight, module[0].weight)
    assert torch.allclose(found.kernels.double(), composed(module[4].weight, inner), atol=1e-6)
    assert (found.layers, found.size) == (3, (9, 9))
    part = expanded_weights(module, "1", "2", [4, 1])
    assert torch.allclose(part.kernels, module[2].weight[[4, 1]], atol=1e-7)
    assert part.channels == (4, 1)


def test_branches_sums_pooling_and_normalisation_are_what_the_module_makes_of_them():
    module = Branches()
    module.norm.running_var.fill_(4.0)
    found = expanded_weights(module, "stem", "head")
    both = torch.zeros(5, 4, 3, 3, dtype=torch.float64)
    both[:2, :, 1:2, 1:2] = module.one.weight.double()
    both[2:] = module.three.weight.double()
    around = module.around.weight.double() * module.norm.weight.double()[:, None, None, None]
    around = around / (4.0 + module.norm.eps) ** 0.5
    around[:, :, 1, 1] += torch.eye(5, dtype=torch.float64)
    after = composed(module.head.weight, around)
    # Pooling by 2 as a mean: each weight is spread over 2 x 2 places, a quarter each.
    spread = torch.kron(after, torch.full((2, 2), 0.25, dtype=torch.float64))
    assert torch.allclose(found.kernels.double(), composed(spread, both), atol=1e-6)
    assert found.layers == 3
    assert found.replaced["max_pool2d"] == 1


def test_direct_weights_are_the_convolutions_own_in_a_fire_module():
    network = seeded(SqueezeNet(classes=7))
    fire = network.features[3]
    found = direct_weights(network, "features.3.squeeze", "features.3.expand3x3")
    assert torch.allclose(found.kernels, fire.expand3x3.weight, atol=1e-7)
    whole = expanded_weights(network, "features.3.squeeze_activation", "features.3", [3, 70])
    assert torch.allclose(whole.kernels[0, :, 1, 1], fire.expand1x1.weight[3, :, 0, 0])
    assert float(whole.kernels[0].abs().sum((0,))[0, 0]) == 0
    assert torch.allclose(whole.kernels[1], fire.expand3x3.weight[6])
    assert torch.allclose(
        direct_weights(network, "input", "features.0").kernels, network.features[0].weight
    )


def test_a_receptive_field_keeps_its_size_where_weights_are_zero():
    module = chain()
    with torch.no_grad():
        module[2].weight[:, :, 0] = 0
    assert expanded_weights(module, "0", "2").size == (5, 5)


def test_the_model_is_left_as_it_was():
    module = chain()
    x = torch.rand(1, 3, 20, 20, generator=generator(0))
    module.train()
    before = module(x.clone())
    expanded_weights(module, "0", "4")
    assert module.training
    assert torch.equal(module(x.clone()), before)


def test_a_grey_model_is_expanded_with_its_one_channel():
    module = seeded(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    assert expanded_weights(module, "input", "0", n_inputs=1).kernels.shape == (2, 1, 3, 3)
    with pytest.raises(ShapeError, match="Pass n_inputs and size as the model needs them"):
        expanded_weights(module, "input", "0")


def test_odd_sizes_give_the_same_weights():
    module = chain()
    sizes = [expanded_weights(module, "0", "4", size=side).kernels for side in (31, 40)]
    assert torch.allclose(*sizes, atol=1e-7)


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        ("input", "9", UnknownNameError, "A layer must be one of"),
        ("2", "2", ValueRangeError, "must come after the source"),
        ("4", "0", UnsupportedModelError, "Something must lead from the source to the target"),
    ],
)
def test_layers_that_are_not_joined_are_refused(source, target, error, words):
    with pytest.raises(error, match=words):
        expanded_weights(chain(), source, target)


def test_layers_side_by_side_are_not_joined():
    with pytest.raises(UnsupportedModelError, match="got none from 'one' to 'three'"):
        expanded_weights(Branches(), "one", "three")


def test_direct_weights_refuse_layers_with_others_between():
    with pytest.raises(
        UnsupportedModelError, match="by one convolution; got 2 between '0' and '4'"
    ):
        direct_weights(chain(), "0", "4")


def test_a_channel_out_of_range_is_named():
    with pytest.raises(ValueRangeError, match="A channel of '4' must be in 0 … 5; got 6"):
        expanded_weights(chain(), "0", "4", [6])


def test_a_product_of_maps_has_no_weights():
    with pytest.raises(UnsupportedModelError, match="must be linear once rectifiers and maxima"):
        expanded_weights(Gated(), "first", "last")


def test_tokens_are_no_maps_of_a_convolutional_network():
    module = seeded(nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Flatten(2), nn.Linear(256, 5)))
    with pytest.raises(UnsupportedModelError, match="Circuits are those of convolutional"):
        expanded_weights(module, "0", "2")


def test_a_field_that_is_larger_than_the_map_is_refused():
    module = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 2, 1)))
    with pytest.raises(ShapeError, match="must lie inside the map"):
        expanded_weights(module, "0", "2", size=32)
