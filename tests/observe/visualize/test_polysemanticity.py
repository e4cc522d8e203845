"""Clusters where they were planted, none where they were not; units that are sums of two."""

import pytest
import torch
from torch import nn

from modelassay.core.errors import TooFewTokensError, UnsupportedModelError
from modelassay.core.randomness import generator
from modelassay.observe.visualize.facets import find_facets
from modelassay.observe.visualize.image_input import UNIT
from modelassay.observe.visualize.image_set import LoadedImages
from modelassay.observe.visualize.polysemanticity import polysemanticity


def gaussian(n: int = 40, d: int = 8, seed: int = 0) -> torch.Tensor:
    g = generator(seed)
    return torch.randn(n, d, generator=g) * torch.linspace(3, 1, d)


@pytest.mark.parametrize("planted", [2, 3])
def test_planted_clusters_are_counted_and_named(planted):
    labels = torch.arange(42) % planted
    centres = 6 * torch.eye(8)[:planted]
    found = find_facets(centres[labels] + 0.7 * gaussian(42) / 3)
    assert found.count == planted
    assert found.low > 0
    agree = torch.zeros(planted, planted)
    agree.index_put_((labels, found.labels), torch.ones(42), accumulate=True)
    assert (agree > 0).sum() == planted


def test_without_clusters_the_index_is_zero_on_average_and_the_test_keeps_its_level():
    found = [find_facets(gaussian(30, seed=seed), seed) for seed in range(12)]
    indices = torch.tensor([each.index for each in found])
    assert abs(float(indices.mean())) < 2.5 * float(indices.std()) / 12**0.5
    assert sum(each.count > 1 for each in found) <= 3
    assert float(torch.tensor([each.p_value for each in found]).mean()) > 0.25
    # k-means alone would have called each of them split.
    assert all(float(each.explained[0]) > 0.15 for each in found)


def test_one_cluster_has_one_label_and_the_seed_decides():
    points = gaussian()
    found = find_facets(points)
    assert found.count == 1
    assert not found.labels.any()
    assert find_facets(points).index == found.index


def test_equal_points_are_one_facet():
    found = find_facets(torch.rand(1, 3, generator=generator(0)).expand(20, 3))
    assert (found.count, found.index, found.p_value) == (1, 0.0, 1.0)


def test_what_cannot_be_clustered_is_refused():
    with pytest.raises(TooFewTokensError, match="at least 12 points"):
        find_facets(torch.rand(11, 3))


class Planted(nn.Module):
    """Four channels, one each for red, green, blue and brightness, then the rectified same."""

    def __init__(self):
        super().__init__()
        self.early = nn.Conv2d(3, 4, 1, bias=False)
        self.late = nn.Conv2d(4, 4, 1, bias=False)
        self.aside = nn.Conv2d(3, 4, 1, bias=False)
        self.requires_grad_(False)
        self.early.weight.zero_()
        self.early.weight[:3, :, 0, 0] = torch.eye(3)
        self.early.weight[3] = 1 / 3
        self.late.weight.copy_(torch.eye(4)[:, :, None, None])

    def forward(self, x):
        return self.late(self.early(x).relu()) + 0 * self.aside(x)


def blobs(count: int = 96) -> LoadedImages:
    """Noise with one bright spot, red, green or blue in turn."""
    g = generator(0)
    images = 0.25 * torch.rand(count, 3, 8, 8, generator=g)
    for index in range(count):
        images[index, index % 3, 2:5, 3:6] = 0.8 + 0.2 * torch.rand(3, 3, generator=g)
    return LoadedImages(images)


UNITS = torch.tensor([[1.0, 0, 0, 0], [1.0, 0, 1.0, 0]])
"""A unit that sees red, and one that sees red and blue."""


@pytest.mark.parametrize("kind", ["activations", "attributions"])
def test_a_sum_of_two_channels_has_two_facets_and_a_single_channel_one(kind):
    found = polysemanticity(
        Planted(), "late", "early", blobs(), kind=kind, directions=UNITS, n_examples=30,
        n_random=3, image_input=UNIT,
    )  # fmt: skip
    single, double = found.units
    assert double.facets is not None
    assert double.facets.count == 2
    assert double.facets.low > 0
    colours = torch.tensor([image % 3 for image in double.images])
    assert set(colours.tolist()) == {0, 2}
    assert torch.equal(double.facets.labels == double.facets.labels[0], colours == colours[0])
    assert single.facets is not None
    assert single.facets.index < double.facets.index - 0.1
    assert single.facets.high < double.facets.low
    assert 1 <= len(found.random) <= 3
    assert 0 <= double.above_random <= 1


def test_a_silent_unit_has_no_facets():
    found = polysemanticity(
        Planted(), "late", "early", blobs(), directions=-UNITS, n_random=1, image_input=UNIT
    )
    assert [unit.facets for unit in found.units] == [None, None]
    assert found.units[0].examples == 0


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(TooFewTokensError, match="must have at least 12 images"):
        polysemanticity(Planted(), "late", "early", blobs(9), image_input=UNIT)
    with pytest.raises(UnsupportedModelError, match="Name a layer before it"):
        polysemanticity(
            Planted(), "late", "aside", blobs(), kind="attributions", directions=UNITS,
            image_input=UNIT,
        )  # fmt: skip
