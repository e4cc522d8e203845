"""Families on networks in which the detectors were planted, and on those without."""

import math

import pytest
import torch
from torch import nn

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.circuits.families import LEAST_INDEX, curve, family, shuffled_twin
from modelassay.observe.stimuli import curves
from modelassay.observe.visualize.image_input import UNIT
from modelassay.subjects.vision.squeezenet import load_squeezenet
from tests.observe.circuits.models import filters
from tests.observe.circuits.test_tuning import gabors


def test_planted_orientation_filters_stand_above_noise():
    noise = torch.randn(10, 11, 11, generator=derived(0, "noise")) * 0.3
    module = filters(torch.cat([gabors(range(0, 180, 18)), noise]))
    found = family(module, "1", "orientation", size=32, n_twins=1, image_input=UNIT)
    index = found.measured.index
    assert float(index[:10].min()) > 0.6
    assert float(index[10:].nanmedian()) < 0.3
    distance = found.measured.preferred[:10].rad2deg() - torch.arange(0.0, 180, 18)
    assert float(((distance + 90) % 180 - 90).abs().max()) < 3


def test_known_channels_of_squeezenet_are_tuned_to_orientation(shared_data):
    module = load_squeezenet(shared_data / "squeezenet1_0")
    found = family(module, "features.1", "orientation", size=48, n_twins=2)
    assert {38, 56, 83, 33} <= set(found.members)
    assert 30 < len(found.members) < 60
    assert found.null_share < 0.05


def arc_filters():
    """An arc and a straight line, each with flanks that inhibit, thresholded."""
    drawn = []
    for thickness in (3.0, 9.0):
        found = curves(
            21, directions=2, radii=[6.0, math.inf], length=18.0, thickness=thickness, offsets=[0.0]
        )
        image = found.images.view(2, 2, 4, 3, 21, 21)[0, :, 0, 0] - 0.5
        drawn.append(image / image.sum((1, 2), keepdim=True))
    module = filters(drawn[0] - drawn[1])
    with torch.no_grad():
        module[0].bias.fill_(-0.15)
    return module


def test_a_planted_curve_detector_has_the_index_that_a_straight_one_lacks():
    found = curve(arc_filters(), "1", 64, UNIT, 0)
    assert float(found.index[0]) > LEAST_INDEX
    assert float(found.index[1]) < 0.1
    assert float(found.preferred[0]) == 0.0


def test_a_planted_colour_detector_is_told_from_an_edge_detector():
    conv = nn.Conv2d(3, 2, 5)
    step = torch.tensor([-1.0, -1, 0, 1, 1]).expand(5, 5)
    red_green = torch.tensor([1.0, -1.0, 0.0])[:, None, None]
    with torch.no_grad():
        conv.weight.copy_(torch.stack([red_green * step, step.expand(3, -1, -1)]))
        conv.bias.zero_()
    module = nn.Sequential(conv, nn.ReLU()).eval()
    found = family(module, "1", "colour contrast", size=32, n_twins=1, image_input=UNIT)
    assert float(found.measured.index[0]) > LEAST_INDEX
    assert float(found.measured.index[1]) < 0


def test_a_fine_texture_filter_is_no_detector_of_the_boundary():
    module = filters(gabors([0], frequency=0.25))
    found = family(module, "1", "high-low frequency", size=40, n_twins=1, image_input=UNIT)
    assert float(found.measured.index[0]) < LEAST_INDEX
    assert found.members == ()


def test_a_dead_channel_belongs_to_no_family():
    module = filters(gabors([0, 90]))
    with torch.no_grad():
        module[0].bias[1] = -1e6
    found = family(module, "1", "orientation", size=32, n_twins=1, image_input=UNIT)
    assert bool(found.measured.index[1].isnan())
    assert (float(found.p_value[1]), float(found.q_value[1])) == (1.0, 1.0)
    assert 1 not in found.members


def test_a_twin_has_the_same_numbers_in_another_order():
    module = filters(gabors([0, 45]))
    twin = shuffled_twin(module, derived(0, "twin"))
    assert not torch.equal(twin[0].weight, module[0].weight)
    assert torch.equal(
        twin[0].weight.flatten().sort().values, module[0].weight.flatten().sort().values
    )


def test_without_a_twin_nothing_is_judged():
    with pytest.raises(ValueRangeError, match="1 or more twins; got 0"):
        family(filters(gabors([0])), "1", "orientation", n_twins=0)
