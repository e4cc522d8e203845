"""Sizes, places and gradients of the random transformations."""

import pytest
import torch

from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.observe.visualize import transforms
from modelassay.observe.visualize.transforms import (
    ATLAS,
    DISTILL,
    LUCID,
    Crops,
    Jitter,
    Pad,
    Rotate,
    Scale,
    Warp,
    apply,
    views,
    warp,
)


def picture(height: int, width: int, n: int = 1, seed: int = 0):
    return torch.rand(n, 3, height, width, generator=generator(seed))


def sizes(steps, image, seed):
    g, found = generator(seed), []
    for step in steps:
        image = step(image, g, 0.0)
        found.append(image.shape[-1])
    return found


def test_lucids_set_has_the_published_sizes():
    found = [sizes(LUCID, picture(128, 128), seed) for seed in range(80)]
    padded, cropped, scaled, turned, last = (set(column) for column in zip(*found, strict=True))
    assert padded == {152}
    assert cropped == {144}
    assert (min(scaled), max(scaled)) == (129, 158)
    assert turned == scaled
    assert last == {size - 4 for size in scaled}
    assert len(scaled) == 11


def test_distills_set_has_the_published_constants():
    pad, *jitters, scale, rotate, last = DISTILL
    assert pad == Pad(2)
    assert jitters == [Jitter(4)] * 10
    assert isinstance(scale, Scale)
    assert len(scale.factors) == 85 + 2 * 20
    assert (max(scale.factors), min(scale.factors)) == (0.995**-5, 0.995**79)
    assert isinstance(rotate, Rotate)
    assert len(rotate.degrees) == 40 + 20 + 10 + 5
    assert (min(rotate.degrees), max(rotate.degrees)) == (-20, 19)
    assert last == Jitter(2)


def test_padding_and_jitter_move_pixels_and_change_none():
    image = picture(9, 12)
    seen = apply((Pad(3), Jitter(6)), image, generator(5))
    assert seen.shape == image.shape
    padded = torch.nn.functional.pad(image, [3] * 4, value=0.5)
    places = [(y, x) for y in range(7) for x in range(7)]
    assert any(torch.equal(padded[..., y : y + 9, x : x + 12], seen) for y, x in places)


def test_every_place_of_a_jitter_comes_up():
    image = torch.arange(25.0).view(1, 1, 5, 5).expand(-1, 3, -1, -1)
    corners = {float(Jitter(2)(image, generator(s), 0.0)[0, 0, 0, 0]) for s in range(120)}
    assert corners == {0, 1, 2, 5, 6, 7, 10, 11, 12}


def test_a_quarter_turn_is_exact_and_counter_clockwise():
    image = picture(8, 8)
    assert torch.allclose(warp(image, degrees=90.0), torch.rot90(image, 1, (2, 3)), atol=1e-5)


def test_a_shift_by_whole_pixels_is_exact_and_shows_the_border():
    image = picture(6, 10)
    moved = warp(image, shift=(2.0, 3.0), value=0.25)
    assert torch.allclose(moved[..., 2:, 3:], image[..., :-2, :-3], atol=1e-5)
    assert torch.allclose(moved[..., :2, :], torch.tensor(0.25), atol=1e-5)


def test_scaling_by_a_warp_enlarges():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 24:40, 24:40] = 1
    area = warp(image, factor=1.5, value=0.0).sum() / image.sum()
    assert float(area) == pytest.approx(1.5**2, rel=0.02)


def test_turning_an_oblong_image_does_not_shear_it():
    image = torch.zeros(1, 3, 64, 96)
    image[..., 31:33, 24:72] = 1
    turned = warp(image, degrees=30.0, value=0.0)[0, 0]
    y, x = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(96.0) - 47.5, indexing="ij")
    angle = 0.5 * torch.atan2(2 * (turned * x * y).sum(), (turned * (x * x - y * y)).sum())
    assert float(-angle.rad2deg()) == pytest.approx(30, abs=0.3)


def test_one_draw_serves_the_whole_batch():
    image = picture(64, 64)
    for steps in (LUCID, ATLAS, (Warp(4.0, (0.9, 1.1), 10.0),)):
        seen = apply(steps, image.expand(3, -1, -1, -1), generator(3))
        assert torch.equal(seen[0], seen[2])


def test_the_generator_decides_everything():
    image = picture(32, 32)
    first, again, other = (apply(LUCID, image, generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


@pytest.mark.parametrize("name", ["LUCID", "DISTILL", "ATLAS"])
def test_gradients_reach_the_image(name):
    image = picture(96, 96).requires_grad_()
    apply(getattr(transforms, name), image, generator(0)).sum().backward()
    assert float((image.grad != 0).float().mean()) > 0.1


def test_crops_shrink_as_the_optimisation_goes_on():
    # On a ramp from 0 to 1 the range of a crop's values is its side.
    ramp = torch.linspace(0, 1, 200).expand(1, 3, 200, 200)
    crops = Crops(count=200, size=16, noise=0.0)

    def side(progress):
        seen = crops(ramp, generator(0), progress)[:, 0, 0]
        return float((seen[:, -1] - seen[:, 0]).mean()) * 16 / 15

    assert side(0.0) == pytest.approx(0.5, abs=0.02)
    assert side(0.5) == pytest.approx(0.275, abs=0.02)
    assert side(1.0) == pytest.approx(0.07, abs=0.02)  # clipped at 0.05 from below


def test_crops_stand_image_by_image_with_published_noise():
    crops = Crops(count=20, size=24)
    images = torch.stack([torch.full((3, 50, 50), level) for level in (0.2, 0.8)])
    seen = crops(images, generator(0), 0.3)
    assert views((Pad(1), crops)) == 20
    assert torch.allclose(seen[:20].mean(), torch.tensor(0.2), atol=2e-3)
    assert torch.allclose(seen[20:].mean(), torch.tensor(0.8), atol=2e-3)
    expected = (0.08**2 + 0.08**2 / 12) ** 0.5
    assert float(seen[:20].std()) == pytest.approx(expected, rel=0.02)


def test_an_image_smaller_than_its_jitter_is_refused():
    with pytest.raises(ShapeError, match=r"larger than the jitter of 8 pixels; got \[6, 6\]"):
        Jitter(8)(picture(6, 6), generator(0), 0.0)
