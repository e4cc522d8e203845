"""Synthetic images: what they are said to show is what they show."""

import math

import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe import stimuli
from modelassay.observe.stimuli import (
    bars,
    colour_contrasts,
    curves,
    dots,
    edges,
    equal_luma_axes,
    gratings,
    high_low_boundaries,
)

LUMA = torch.tensor([0.2126, 0.7152, 0.0722])


def every():
    return [
        gratings(16, orientations=4, frequencies=[0.25], phases=4),
        edges(16, directions=4),
        bars(16, orientations=4),
        curves(16, directions=4, radii=[4.0, math.inf]),
        high_low_boundaries(64, generator(0), directions=4, samples=2),
        colour_contrasts(16, hues=4, directions=4),
        dots(16, radii=[2.0]),
    ]


@pytest.mark.parametrize("found", every(), ids=lambda found: found.name)
def test_there_is_one_image_in_range_for_each_combination(found):
    assert found.images.shape[:2] == (math.prod(found.shape), 3)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert len(found.images.flatten(1).unique(dim=0)) > 1


def test_a_grating_has_its_frequency_direction_and_phase():
    found = gratings(32, orientations=4, frequencies=[1 / 8], phases=4)
    image = found.images.view(4, 1, 4, 3, 32, 32)
    for column in range(32):
        x = column - 15.5
        expected = 0.5 + 0.5 * math.cos(2 * math.pi / 8 * x - math.pi / 2)
        assert float(image[0, 0, 1, 0, 5, column]) == pytest.approx(expected, abs=1e-6)
    # A quarter turn: rows become columns, read from the bottom because y points upwards.
    assert torch.allclose(image[2, 0, 1, 0], image[0, 0, 1, 0].T.flip(0), atol=1e-5)


def test_directions_turn_counter_clockwise_and_name_the_bright_side():
    image = edges(16, directions=4, offsets=[0.0]).images[:, 0]
    assert image[0, 8, 15] == 1
    assert image[0, 8, 0] == 0
    for quarter in (1, 2, 3):
        assert torch.allclose(image[quarter], image[0].rot90(quarter), atol=1e-6)


def test_an_arc_lies_on_its_circle_and_is_as_long_as_a_straight_one():
    radii = [10.0, math.inf]
    found = curves(64, directions=4, radii=radii, thickness=3.0, length=24.0, offsets=[0.0])
    image = found.images.view(4, 2, 4, 3, 64, 64)[:, :, :, 0]
    bright, dark, inside, outside = image[0, 0]
    place = torch.arange(64) - 31.5
    to_centre = torch.hypot(10 - place[None, :], -place[:, None])
    assert bool(((to_centre - 10).abs()[bright > 0.5] <= 2.0).all())
    areas = [float((image[0, index, 0] - 0.5).sum()) for index in range(2)]
    assert areas[0] == pytest.approx(areas[1], rel=0.05)
    assert torch.allclose(bright + dark, torch.ones(64, 64))
    assert torch.allclose(inside + outside, torch.ones(64, 64))
    assert inside[32, 35] > 0.9
    assert inside[32, 28] < 0.1
    assert torch.allclose(image[1, 0, 0], bright.rot90(1), atol=1e-6)


def test_no_arc_is_longer_than_half_its_circle():
    image = curves(64, directions=1, radii=[5.0], length=60.0, offsets=[0.0]).images[0, 0]
    rows, columns = (image > 0.9).nonzero().T
    assert float(columns.float().max()) - 31.5 <= 5 + 2
    assert float(rows.float().max() - rows.float().min()) == pytest.approx(13, abs=2)


def test_textures_have_equal_contrast_and_their_own_frequencies():
    found = high_low_boundaries(64, generator(3), directions=4, samples=8)
    image = found.images.view(4, 3, 8, 3, 64, 64)[:, :, :, 0]
    assert float(image[0, 1].std()) == pytest.approx(float(image[0, 2].std()), rel=0.05)
    steps = (image[..., 1:] - image[..., :-1]).square()
    fine, coarse = steps[0, 0, :, :, 40:].mean(), steps[0, 0, :, :, :24].mean()
    assert fine > 4 * coarse  # the direction, rightwards, is the fine side
    again = high_low_boundaries(64, generator(3), directions=4, samples=8)
    assert torch.equal(again.images, found.images)


def test_colours_have_equal_luma_and_opposite_hues_swap_sides():
    found = colour_contrasts(16, hues=4, directions=2)
    luma = torch.einsum("c,nchw->nhw", LUMA, found.images)
    assert torch.allclose(luma, torch.full_like(luma, 0.5), atol=1e-6)
    image = found.images.view(4, 2, 3, 16, 16)
    assert torch.allclose(image[2, 0], image[0, 1], atol=1e-6)
    red, blue = equal_luma_axes()
    assert red[0] > 0
    assert blue[2] > 0
    assert torch.allclose(torch.stack([red, blue]) @ LUMA, torch.zeros(2), atol=1e-7)


def test_a_dot_has_its_area_and_polarity():
    found = dots(32, radii=[6.0], offsets=[0.0]).images[:, 0] - 0.5
    assert float(found[0].sum() * 2) == pytest.approx(math.pi * 36, rel=0.02)
    assert torch.allclose(found[0], -found[1])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gratings(16, frequencies=[0.6]), "frequency must be above 0 and at most 1/2"),
        (lambda: curves(16, radii=[-1.0]), "radius must be above 0"),
        (lambda: edges(16, contrast=1.5), "contrast must be above 0 and at most 1"),
        (lambda: colour_contrasts(16, chroma=0.6), "chroma must be above 0"),
        (lambda: high_low_boundaries(64, generator(0), high=0.1, low=0.2), "must be ordered"),
        (lambda: high_low_boundaries(8, generator(0), low=0.01), "that 8 pixels can hold"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, words):
    with pytest.raises(ValueRangeError, match=words):
        make()


def test_too_few_pixels_are_refused():
    with pytest.raises(ShapeError, match="at least 8 pixels wide; got 4"):
        stimuli.edges(4)
