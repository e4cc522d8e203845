"""Receptive fields against the arithmetic of kernels and strides, and against changed pixels."""

import pytest
import torch
from torch import nn

from modelassay.core.errors import UnknownNameError, UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_input import UNIT, ImageInput
from modelassay.observe.visualize.receptive_fields import Box, receptive_fields
from modelassay.subjects.vision.squeezenet import SqueezeNet
from tests.observe.visualize.models import Tokens, convolutional, silent

# Side and distance of the fields of SqueezeNet 1.0, by r' = r + (k - 1) j and j' = j s.
SQUEEZENET = {
    "features.0": (7, 2),
    "features.2": (11, 4),
    "features.3": (19, 4),
    "features.5": (35, 4),
    "features.6": (43, 8),
    "features.9": (91, 8),
}


def squeezenet() -> nn.Module:
    with torch.random.fork_rng():
        return SqueezeNet().eval()


@pytest.mark.parametrize("layer", ["features.2", "features.6"])
def test_squeezenets_fields_are_those_of_its_kernels_and_strides(layer):
    side, distance = SQUEEZENET[layer]
    found = receptive_fields(squeezenet(), layer, (75, 75))
    first, second = found.box((1, 1)), found.box((2, 1))
    assert found.largest == (side, side)
    assert second.bottom - first.bottom == distance or found.box((2, 1)).bottom == 75
    # Position p of features.2 sees pixels 4 p … 4 p + 10; the 3x3 kernels before features.6
    # add 12 pixels on each side, and its own pooling 8 on the right.
    if layer == "features.2":
        assert first == Box(4, 4, 15, 15)


def test_a_field_at_the_border_is_clipped_and_keeps_its_centre():
    module = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 3, padding=1)).eval()
    found = receptive_fields(module, "1", (20, 30), image_input=UNIT)
    assert found.shape == (20, 30)
    assert found.box((0, 0)) == Box(0, 0, 4, 4)
    assert found.box((10, 29)) == Box(7, 26, 14, 30)
    assert found.centre((0, 0)) == (0.5, 0.5)
    assert found.centre((10, 29)) == (10.5, 29.5)


def test_dead_rectifiers_and_pruned_weights_hide_nothing():
    found = receptive_fields(silent(bias=-1e6), "3", (24, 24), image_input=UNIT)
    alive = receptive_fields(convolutional(in_place=True), "3", (24, 24), image_input=UNIT)
    pruned = convolutional()
    nn.init.zeros_(pruned[0].weight)
    assert torch.equal(found.boxes, alive.boxes)
    again = receptive_fields(pruned, "3", (24, 24), image_input=UNIT)
    assert torch.equal(again.boxes, alive.boxes)
    assert found.largest == (9, 9)


def test_no_pixel_outside_the_box_changes_a_position_and_the_corners_inside_do():
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, dilation=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ).eval()
    fields = receptive_fields(module, "3", (21, 17), image_input=UNIT)
    g = generator(0)
    box = fields.box((4, 3))
    image = torch.rand(1, 3, 21, 17, generator=g)
    outside = torch.rand(image.shape, generator=g)
    outside[:, :, box.top : box.bottom, box.left : box.right] = box.crop(image[0])
    before, after = (feature_maps(module, ["3"], x)["3"][0, :, 4, 3] for x in (image, outside))
    assert torch.equal(before, after)
    assert (box.height, box.width) == (7, 7)


def test_tokens_see_their_patch_and_a_mean_over_tokens_everything():
    module = Tokens()
    patches = receptive_fields(module, "block", (16, 16), image_input=UNIT)
    assert patches.shape == (16, 1)
    assert patches.box((5, 0)) == Box(4, 4, 8, 8)
    assert receptive_fields(module, "head", (16, 16), image_input=UNIT).largest == (16, 16)


def test_the_box_is_in_pixels_of_the_image_before_the_model_resizes_it():
    doubled = ImageInput(size=(16, 16))
    found = receptive_fields(Tokens(), "block", (32, 32), image_input=doubled)
    box = found.box((5, 0))
    assert box.top in (8, 9)
    assert box.height in (7, 8)


def test_a_transposed_layout_is_noticed():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 2, 1)
            self.turned = nn.Identity()

        def forward(self, x):
            # Every position also sees its mirror image across the diagonal.
            x = self.first(x)
            return self.turned(x + x.transpose(2, 3))

    found = receptive_fields(Transposed().eval(), "turned", (6, 6), image_input=UNIT)
    assert found.box((1, 4)) == Box(1, 1, 5, 5)
    assert found.box((2, 2)) == Box(2, 2, 3, 3)


def test_what_has_no_field_is_refused():
    with pytest.raises(UnknownNameError, match="A layer"):
        receptive_fields(convolutional(), "absent", (24, 24), image_input=UNIT)
    with pytest.raises(ValueRangeError, match=r"8 rows and 8 columns; got \(8, 0\)"):
        receptive_fields(convolutional(), "3", (24, 24), image_input=UNIT).box((8, 0))

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.fixed = nn.Identity()

        def forward(self, x):
            return self.fixed(torch.ones(len(x), 3, 4, 4))

    with pytest.raises(UnsupportedModelError, match="must depend on the image"):
        receptive_fields(Constant(), "fixed", (8, 8), image_input=UNIT)
