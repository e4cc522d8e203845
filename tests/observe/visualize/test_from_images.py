"""Accentuation, caricature, controls, and pictures as files."""

import zlib
from dataclasses import replace

import pytest
import torch
from torch import nn

from modelassay.core.errors import ShapeError, UnsupportedModelError
from modelassay.core.randomness import generator
from modelassay.observe.visualize.controls import controls, untrained_twin
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.from_images import accentuate, caricature
from modelassay.observe.visualize.image_input import UNIT
from modelassay.observe.visualize.png import sheet, to_png
from modelassay.observe.visualize.render import measure
from modelassay.observe.visualize.targets import Channel, Likeness
from tests.observe.visualize.models import QUICK, convolutional

IMAGES = torch.rand(2, 3, 20, 24, generator=generator(0)) * 0.8 + 0.1
TARGETS = [Channel("3", 1), Channel("3", 4)]


def test_accentuation_raises_the_target_and_stays_near_the_image():
    module = convolutional()
    before = measure(module, TARGETS, IMAGES, image_input=UNIT).diagonal()

    def run(pull):
        found = accentuate(module, TARGETS, IMAGES, pull=pull, settings=QUICK, image_input=UNIT)
        return found.images

    free, held = run(0.0), run(1e4)
    assert bool((measure(module, TARGETS, free, image_input=UNIT).diagonal() > before).all())
    assert float((held - IMAGES).square().mean()) < 0.5 * float((free - IMAGES).square().mean())


def test_a_caricature_becomes_like_its_image_and_not_like_another():
    module = convolutional()
    found = caricature(module, "2", IMAGES, settings=replace(QUICK, steps=30), image_input=UNIT)
    assert found.names == (Likeness("2").name,) * 2
    assert bool((found.objective > 1).all())  # more like the original than the original is
    with torch.no_grad():
        made, given = (feature_maps(module, ["2"], x)["2"] for x in (found.images, IMAGES))
    # Without what all images share.
    made, given = (a - given.mean(0, keepdim=True) for a in (made, given))
    alike = torch.einsum("ichw,jchw->ij", made, given)
    assert bool((alike.diagonal() > alike.flip(1).diagonal()).all())


def test_one_target_for_each_image():
    with pytest.raises(ShapeError, match="got 1 targets for 2 images"):
        accentuate(convolutional(), TARGETS[:1], IMAGES)


def test_controls_are_another_network_and_random_directions():
    module = convolutional()
    weights = module[0].weight.clone()
    found = controls(
        module, tuple(TARGETS), settings=QUICK, image_input=UNIT, n_directions=3, seed=2
    )
    assert torch.equal(module[0].weight, weights)
    assert found.untrained.images.shape[0] == 2
    assert found.random_direction is not None
    assert found.random_direction.names[2] == "3 random direction 2"
    lengths = [target.vector.norm() for target in found.random_direction.targets]
    assert torch.allclose(torch.stack(lengths), torch.ones(3))
    twin, again = untrained_twin(module, 2), untrained_twin(module, 2)
    assert torch.equal(twin[0].weight, again[0].weight)
    assert not torch.equal(twin[0].weight, weights)
    with pytest.raises(UnsupportedModelError, match="must have parameters"):
        untrained_twin(nn.ReLU(), 0)


def decoded(png: bytes):
    """A decoder of what `to_png` writes, from the format's own rules."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks = 8, {}
    while place < len(png):
        length = int.from_bytes(png[place : place + 4])
        kind, content = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        check = int.from_bytes(png[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + content)
        chunks[kind] = content
        place += 12 + length
    width, height = (int.from_bytes(chunks[b"IHDR"][i : i + 4]) for i in (0, 4))
    channels = {0: 1, 2: 3, 6: 4}[chunks[b"IHDR"][9]]
    lines = zlib.decompress(chunks[b"IDAT"])
    stride = 1 + width * channels
    rows = []
    for y in range(height):
        line = lines[y * stride : (y + 1) * stride]
        assert line[0] == 1
        row = bytearray(line[1:])
        for i in range(channels, len(row)):
            row[i] = (row[i] + row[i - channels]) % 256
        rows.append(list(row))
    return torch.tensor(rows).view(height, width, channels).permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_holds_the_image(channels):
    image = torch.rand(channels, 5, 7, generator=generator(1))
    assert torch.equal(decoded(to_png(image)), (image * 255).round().long())


def test_a_sheet_stands_row_by_row_on_white():
    images = torch.zeros(3, 3, 2, 2)
    images[1] = 0.5
    page = sheet(images, columns=2, gap=1)
    assert page.shape == (3, 5, 5)
    assert page[0, 0].tolist() == [0, 0, 1, 0.5, 0.5]
    assert page[0, 3].tolist() == [0, 0, 1, 1, 1]


def test_two_channels_are_no_picture():
    with pytest.raises(ShapeError, match=r"1, 3 or 4 channels, h, w\]; got \[2, 4, 4\]"):
        to_png(torch.zeros(2, 4, 4))
