"""Examples of channels, on images whose answers can be worked out."""

import pytest
import torch
from torch import nn

from modelassay.core.errors import (
    NonFiniteError,
    ShapeError,
    TooFewTokensError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_examples import WantedImages, find_image_examples
from modelassay.observe.visualize.image_input import UNIT
from modelassay.observe.visualize.image_set import ImageFolder, LoadedImages
from modelassay.observe.visualize.png import to_png
from modelassay.observe.visualize.unit_maps import Scene, UnitReader, strongest_places
from tests.observe.visualize.models import convolutional, seeded

FEW = WantedImages(n_top=3, n_bands=2, per_band=2, n_random=4, n_silent=2)


def brightness(offset: float = 0.0) -> nn.Module:
    """One channel: the mean of 3 x 3 pixels, less an offset, rectified; another that is dead."""
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).requires_grad_(False).eval()
    nn.init.constant_(module[0].weight, 1 / 27)  # pyright: ignore[reportArgumentType]
    module[0].bias.copy_(torch.tensor([-offset, -10.0]))  # pyright: ignore
    return module


def spots(count: int = 20, side: int = 12) -> torch.Tensor:
    """Image i is black but for one 3 x 3 spot of brightness (i + 1) / count."""
    images = torch.zeros(count, 3, side, side)
    for index in range(count):
        row, column = index % 10, (3 * index) % 10
        images[index, :, row : row + 3, column : column + 3] = (index + 1) / count
    return images


def found(module=None, images=None, **options):
    images = LoadedImages(spots() if images is None else images)
    options = {"wanted": FEW, "image_input": UNIT} | options
    return find_image_examples(module or brightness(), "1", images, **options)


def groups(examples, unit=0):
    return {group.name: group.examples for group in examples.units[unit].groups}


def test_the_strongest_examples_are_the_brightest_spots_cut_out_exactly():
    top = groups(found())["top"]
    assert [example.image for example in top] == [19, 18, 17]
    assert [example.value for example in top] == pytest.approx([1.0, 0.95, 0.9])
    for example in top:
        assert example.position == (example.image % 10, 3 * example.image % 10)
        assert example.crop.shape == (3, 3, 3)
        assert bool((example.crop == (example.image + 1) / 20).all())


def test_bands_come_from_their_ranks_and_no_image_is_shown_twice():
    shown = groups(found())
    assert all(example.image >= 10 for example in shown["0–50 %"])
    assert all(example.image < 10 for example in shown["50–100 %"])
    images = [example.image for examples in shown.values() for example in examples]
    assert len(images) == len(set(images)) == 3 + 2 * 2 + 4


def test_silent_images_are_those_where_the_unit_is_above_zero_nowhere():
    unit = found(brightness(offset=0.5)).units[0]
    silent = unit.groups[-1]
    assert silent.name == "silent"
    assert len(silent.examples) == 2
    assert all(example.image < 10 and example.value == 0 for example in silent.examples)
    assert unit.active_images == 10


def test_a_dead_channel_is_said_to_be_dead_and_has_no_top():
    unit = found().units[1]
    assert unit.note == "Never fires on these 20 images: above 0 nowhere."
    shown = groups(found(), unit=1)
    assert shown["top"] == shown["0–50 %"] == ()
    assert len(shown["random"]) == 4
    assert found().units[0].note == ""


def test_several_places_of_one_image_only_if_asked_for():
    wanted = WantedImages(n_top=3, per_image=3)
    two = torch.zeros(2, 3, 12, 12)
    two[0] = 1.0
    assert [e.image for e in groups(found(images=two, wanted=wanted))["top"]] == [0, 0, 0]
    assert [e.image for e in groups(found(images=two))["top"]] == [0]


def test_batches_do_not_matter_and_seeds_decide():
    images = LoadedImages(torch.rand(23, 3, 24, 24, generator=generator(0)))
    scenes = [
        Scene(module=convolutional(), layer="3", images=images, image_input=UNIT, batch=batch)
        for batch in (1, 7, 64)
    ]
    reader = UnitReader.of(6, None, None, "3")
    one, seven, whole = (
        strongest_places(scene, reader, count=5, pool=range(23)) for scene in scenes
    )
    for other in (seven, whole):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.places, other.places)
        assert torch.allclose(one.values, other.values, atol=1e-6)
        assert torch.equal(one.active, other.active)
    same = [
        [[e.image for e in g.examples] for u in found(seed=s).units for g in u.groups]
        for s in (0, 0, 1)
    ]
    assert same[0] == same[1] != same[2]


def test_the_strongest_are_those_of_the_slow_definition():
    images = torch.rand(15, 3, 24, 24, generator=generator(1))
    reader = UnitReader.of(6, [4, 0], None, "3")
    scene = Scene(module=convolutional(), layer="3", images=LoadedImages(images), image_input=UNIT)
    got = strongest_places(scene, reader, count=4)
    maps = feature_maps(convolutional(), ["3"], images)["3"][:, [4, 0]].flatten(2).amax(2)
    values, owners = maps.sort(dim=0, descending=True)
    assert torch.equal(got.images, owners[:4].T)
    assert torch.allclose(got.values, values[:4].T, atol=1e-6)


def test_a_one_hot_direction_is_its_channel():
    images = torch.rand(9, 3, 24, 24, generator=generator(2))
    module = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    channel = found(module, images, channels=[2])
    direction = found(module, images, directions=torch.eye(4)[2:3])
    for one, other in zip(groups(channel)["top"], groups(direction)["top"], strict=True):
        assert (one.image, one.position) == (other.image, other.position)
        assert one.value == pytest.approx(other.value)


def test_a_folder_of_grey_and_odd_images_is_cut_to_one_size(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "grey.png").write_bytes(to_png(torch.full((1, 9, 31), 0.5)))
    (tmp_path / "below" / "odd.png").write_bytes(to_png(torch.rand(3, 17, 8)))
    folder = ImageFolder(tmp_path, (8, 8))
    assert [folder.name(index) for index in range(len(folder))] == ["below/odd.png", "grey.png"]
    assert folder.image(0).shape == folder.image(1).shape == (3, 8, 8)
    shown = find_image_examples(brightness(), "1", folder, wanted=FEW, image_input=UNIT)
    assert shown.n_images == 2


def test_what_cannot_be_answered_is_refused(tmp_path):
    with pytest.raises(ValueRangeError, match=r"in 0 … 1; got \[2\]"):
        found(channels=[0, 2])
    with pytest.raises(ValueRangeError, match=r"shape \[unit, 2\]; got \[1, 3\]"):
        found(directions=torch.ones(1, 3))
    with pytest.raises(TooFewTokensError, match="got none at"):
        ImageFolder(tmp_path, (8, 8))
    with pytest.raises(ShapeError, match="Repeat the grey channel"):
        LoadedImages(torch.rand(2, 1, 8, 8))
    with pytest.raises(ValueRangeError, match="at least 1 strongest example"):
        WantedImages(n_top=0)
    broken = brightness()
    nn.init.constant_(broken[0].weight, float("nan"))  # pyright: ignore
    with pytest.raises(NonFiniteError, match="NaN or Inf at '1'"):
        found(broken)


class Nothing:
    size = (8, 8)

    def __len__(self):
        return 0

    def image(self, index):
        raise IndexError(index)

    def name(self, index):
        raise IndexError(index)


def test_an_empty_set_is_refused():
    with pytest.raises(TooFewTokensError, match="must have at least 1 images; got 0"):
        find_image_examples(brightness(), "1", Nothing(), image_input=UNIT)
