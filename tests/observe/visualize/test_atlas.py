"""The atlas: effects on classes, layouts and cells whose answers can be worked out."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from modelassay.core.errors import (
    MissingExtraError,
    TooFewTokensError,
    UnknownNameError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.observe.visualize.atlas import (
    SMALL,
    AtlasOptions,
    activation_atlas,
    cell_effects,
    sample_activations,
    whitened,
)
from modelassay.observe.visualize.class_effects import class_effects
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_input import UNIT
from modelassay.observe.visualize.image_set import LoadedImages
from modelassay.observe.visualize.layouts import cells_of, lay_out
from modelassay.observe.visualize.unit_maps import Scene
from tests.observe.visualize.models import Tokens, convolutional, seeded

TINY = replace(SMALL, size=(12, 12), steps=12, transforms=())


def classifier(*, in_place: bool = False) -> nn.Sequential:
    """A convolution, a rectifier, the mean over positions, and a linear head."""
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.ReLU(inplace=in_place), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 4),
    )  # fmt: skip
    return seeded(module)  # pyright: ignore[reportReturnType]


def noise(count: int = 6, side: int = 10, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=generator(seed))


@pytest.mark.parametrize("in_place", [False, True])
def test_the_effect_of_a_position_is_its_share_of_a_linear_head(in_place):
    module = classifier(in_place=in_place)
    images, positions = noise(3), [(0, 0), (4, 7), (2, 1)]
    got = class_effects(module, "1", images, positions)
    maps = feature_maps(module, ["1"], images)["1"]
    there = torch.stack([maps[i, :, r, c] for i, (r, c) in enumerate(positions)])
    assert torch.allclose(got, there @ module[4].weight.T / 64, atol=1e-6)


def test_the_effect_is_the_derivative_of_scaling_the_position_up():
    module = classifier().double()
    images, step = noise(1).double(), 1e-6

    def logits(factor: float) -> torch.Tensor:
        x = module[0](images)
        x[:, :, 3, 3] *= factor
        return module[1:](x)

    slope = (logits(1 + step) - logits(1 - step)) / (2 * step)
    got = class_effects(module, "0", images, [(3, 3)])
    assert torch.allclose(got, slope.detach(), atol=1e-7)


def test_tokens_have_effects_too_and_models_without_logits_none():
    images = noise(2, 16)
    effects = class_effects(Tokens(), "block", images, [(3, 0), (9, 0)])
    tokens = feature_maps(Tokens(), ["block"], images)["block"][..., 0]
    there = torch.stack([tokens[0, :, 3], tokens[1, :, 9]])
    assert torch.allclose(effects, there @ Tokens().head.weight.T / 16, atol=1e-6)
    with pytest.raises(UnsupportedModelError, match="must return logits"):
        class_effects(convolutional(), "1", noise(1, 24), [(0, 0)])


def test_the_layout_by_variance_is_white_and_finds_the_planted_plane():
    g = generator(0)
    plane = torch.linalg.qr(torch.randn(12, 2, generator=g)).Q
    planted = torch.randn(400, 2, generator=g) * torch.tensor([5.0, 3.0])
    points = lay_out(planted @ plane.T + 0.01 * torch.randn(400, 12, generator=g), "pca")
    assert torch.allclose(torch.cov(points.T), torch.eye(2), atol=0.01)
    both = torch.cat([points, planted], dim=1)
    explained = torch.corrcoef(both.T)[:2, 2:].square().sum(0)
    assert torch.allclose(explained, torch.ones(2), atol=0.01)


def test_umap_is_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'modelassay\[atlas\]'"):
        lay_out(torch.rand(9, 4), "umap")


def test_what_cannot_be_laid_out_is_refused():
    with pytest.raises(UnknownNameError, match="A layout"):
        lay_out(torch.rand(9, 4), "tsne")
    with pytest.raises(TooFewTokensError, match="at least 4 activations"):
        lay_out(torch.rand(3, 4), "pca")
    with pytest.raises(TooFewTokensError, match="vary in two directions"):
        lay_out(torch.arange(9.0)[:, None] * torch.ones(4), "pca")


def test_cells_run_to_the_right_and_upwards_and_outliers_stay_at_the_border():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]])
    assert cells_of(points, 3).tolist() == [6, 8, 0, 2, 4]
    far = torch.cat([points.repeat(100, 1), torch.tensor([[1000.0, -1000.0]])])
    assert cells_of(far, 3)[-1] == 8


def test_directions_are_divided_by_second_moments():
    samples = torch.randn(500, 3, generator=generator(0)) * torch.tensor([10.0, 1.0, 1.0])
    means = torch.tensor([[10.0, 1.0, 0.0]])
    assert torch.equal(whitened(means, samples, float("inf")), means)
    found = whitened(means, samples, 1e-9)[0]
    assert found[1] / found[0] == pytest.approx(10, rel=0.2)
    assert float(found.norm()) == pytest.approx(float(means.norm()))


def test_effects_of_cells_are_means_over_their_samples():
    images = LoadedImages(noise(7))
    scene = Scene(module=classifier(), layer="1", images=images, image_input=UNIT, batch=4)
    samples = sample_activations(scene, 5)
    cells = torch.arange(35) % 3
    got = cell_effects(scene, samples, cells, 4, per_cell=100)
    head = classifier()[4].weight.T / 64
    expected = [(samples.activations[cells == c] @ head).mean(0) for c in range(3)]
    assert torch.allclose(got[:3], torch.stack(expected), atol=1e-6)
    assert not got[3].any()


def coloured(count: int = 30) -> LoadedImages:
    """Images of one colour each: on an arc from red over green to blue."""
    angle = torch.linspace(0, 1, count)
    red, blue = (1 - 2 * angle).clamp(0), (2 * angle - 1).clamp(0)
    colours = torch.stack([red, 1 - red - blue, blue], dim=1)
    return LoadedImages(colours[:, :, None, None].expand(-1, -1, 12, 12).contiguous())


def identity() -> nn.Module:
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Identity()).requires_grad_(False)
    module[0].weight.copy_(torch.eye(3)[:, :, None, None])  # pyright: ignore
    return module.eval()


def test_a_cell_of_red_samples_gets_a_red_picture_and_a_bare_cell_none():
    options = AtlasOptions(grid=4, per_image=3, least=5, classes=0, ridge=float("inf"))
    atlas = activation_atlas(
        identity(), "1", coloured(), options=options, settings=replace(TINY, steps=60),
        image_input=UNIT,
    )  # fmt: skip
    assert atlas.n_samples == 90
    assert sum(cell.samples for cell in atlas.cells) <= 90
    assert len(atlas.cells) < 16
    assert atlas.pictures().count(None) == 16 - len(atlas.cells)
    assert atlas.picture().shape == (3, 48, 48)
    means = torch.stack([cell.picture.mean((1, 2)) for cell in atlas.cells])
    strongest = means.argmax(1).tolist()
    assert set(strongest) == {0, 1, 2}


def test_classes_of_a_cell_are_those_with_the_largest_effect_and_the_seed_decides():
    images = LoadedImages(noise(12))
    options = AtlasOptions(grid=2, per_image=6, classes=2)
    atlases = [
        activation_atlas(
            classifier(), "1", images, options=options, settings=TINY, image_input=UNIT, seed=seed
        )
        for seed in (0, 0, 1)
    ]
    first, again, other = ([cell.classes for cell in atlas.cells] for atlas in atlases)
    assert first == again != other
    for cell in atlases[0].cells:
        (_, high), (_, low) = cell.classes
        assert high >= low


def test_maps_that_cannot_be_made_are_refused():
    with pytest.raises(TooFewTokensError, match=r"at least 50 samples; got at most \d+\. Add"):
        activation_atlas(
            identity(), "1", coloured(), options=AtlasOptions(grid=9, least=50), settings=TINY,
            image_input=UNIT,
        )  # fmt: skip
    with pytest.raises(ValueRangeError, match="grid, per_image and least"):
        AtlasOptions(grid=0)
    with pytest.raises(UnsupportedModelError, match="must return logits"):
        activation_atlas(identity(), "1", coloured(), settings=TINY, image_input=UNIT)
