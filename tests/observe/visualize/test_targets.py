"""What every target measures, on activations that are given; the algebra; facets."""

import pytest
import torch

from modelassay.core.errors import ShapeError, UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.recipes import TopK
from modelassay.observe.visualize.algebra import Seen, interpolate
from modelassay.observe.visualize.between_images import Alignment, FacetSimilarity
from modelassay.observe.visualize.regularisers import Contrast, Distance, TotalVariation
from modelassay.observe.visualize.targets import (
    Channel,
    Direction,
    Layer,
    Likeness,
    Neuron,
    latent,
)

SHAPES = {"a": (5, 4, 6), "b": (5, 4, 6)}


def seen(images: int = 2, views: int = 1, seed: int = 0) -> Seen:
    g = generator(seed)
    maps = {layer: torch.randn(images * views, 5, 4, 6, generator=g) for layer in SHAPES}
    references = {layer: torch.randn(images * views, 5, 4, 6, generator=g) for layer in SHAPES}
    return Seen(images=torch.rand(images, 3, 7, 9, generator=g), maps=maps, references=references)


def test_units_are_what_they_are_called():
    s = seen()
    a = s.maps["a"]
    assert torch.allclose(Channel("a", 3).values(s), a[:, 3].mean((1, 2)))
    assert torch.allclose(Neuron("a", 3).values(s), a[:, 3, 2, 3])
    assert torch.allclose(Neuron("a", 3, (0, 5)).values(s), a[:, 3, 0, 5])
    assert torch.allclose(Layer("a").values(s), a.square().mean((1, 2, 3)))


def test_a_direction_weighs_projections_with_cosines():
    s, v = seen(), torch.randn(5, generator=generator(9))
    for power in (0.0, 1.0, 2.0, 4.0):
        expected = torch.zeros(2)
        for image in range(2):
            for row in range(4):
                for column in range(6):
                    x = s.maps["a"][image, :, row, column]
                    cosine = float(x @ v / x.norm() / v.norm())
                    expected[image] += (x @ v) * max(0.1, cosine) ** power / 24
        found = Direction("a", v, power).values(s)
        assert torch.allclose(found, expected, atol=1e-5), power


def test_views_of_an_image_are_averaged():
    s = seen(images=2, views=3)
    channel = s.maps["a"][:, 1].mean((1, 2))
    assert torch.allclose(Channel("a", 1).values(s), channel.view(2, 3).mean(1))


def test_targets_add_subtract_scale_multiply_and_sum():
    s = seen()
    one, two, three = Channel("a", 0), Channel("b", 1), Layer("a")
    v1, v2, v3 = (t.values(s) for t in (one, two, three))
    assert torch.allclose((one + 2 * two - three * 0.5).values(s), v1 + 2 * v2 - 0.5 * v3)
    assert torch.allclose((-one * two).values(s), -v1 * v2)
    assert torch.allclose(sum([one, two, three]).values(s), v1 + v2 + v3)
    assert (one + two).layers == {"a", "b"}
    assert (one - 0.5 * two).name == "a channel 0 - 0.5 b channel 1"


def test_an_interpolation_begins_and_ends_with_its_targets():
    s = seen()
    row = interpolate(Channel("a", 0), Channel("a", 1), 5)
    assert len(row) == 5
    assert torch.allclose(row[0].values(s), Channel("a", 0).values(s))
    assert torch.allclose(row[4].values(s), Channel("a", 1).values(s))
    middle = (Channel("a", 0).values(s) + Channel("a", 1).values(s)) / 2
    assert torch.allclose(row[2].values(s), middle)


def test_a_latent_is_read_with_its_covector():
    dictionary = TopK(width=7, k=2).build(5, 5, torch.ones(5), generator(0), None)
    s = seen()
    rows = s.maps["a"].movedim(1, -1).reshape(-1, 5)
    pre = dictionary.pre_activations(rows) - dictionary.pre_activations(torch.zeros(1, 5))
    expected = pre[:, 4].view(2, -1).mean(1).detach()
    target = latent("a", dictionary, 4)
    assert torch.allclose(target.values(s), expected, atol=1e-5)
    assert target.name == "a latent 4"
    with pytest.raises(ValueRangeError, match=r"must be in 0 … 6; got 7"):
        latent("a", dictionary, 7)


def test_the_reference_itself_scores_one():
    s = seen()
    same = Seen(images=s.images, maps=s.maps, references=s.maps)
    assert torch.allclose(Likeness("a", 2.0).values(same), torch.ones(2), atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="must be rendered with one; got none"):
        Likeness("a").values(Seen(images=s.images, maps=s.maps, references={}))


def test_similarity_of_facets_is_lucids():
    s = seen(images=3)
    grams = []
    for a in s.maps["a"]:
        flat = a.flatten(1)
        gram = flat @ flat.T
        grams.append(gram / gram.norm())
    expected = sum((grams[i] * grams[j]).sum() for i in range(3) for j in range(3) if i != j) / 3
    assert torch.allclose(FacetSimilarity("a").values(s).sum(), expected, atol=1e-5)
    alike = Seen(images=s.images, maps={"a": s.maps["a"][:1].expand(3, -1, -1, -1)}, references={})
    assert torch.allclose(FacetSimilarity("a").values(alike), torch.full((3,), 2 / 3), atol=1e-5)
    assert FacetSimilarity("a").values(seen(images=1)).item() == pytest.approx(0, abs=1e-6)


def test_alignment_is_lucids():
    s = seen(images=6)
    a = s.maps["a"]
    expected = -sum((a[d:] - a[:-d]).square().mean() / 2**d for d in (1, 2, 3, 4))
    assert torch.allclose(Alignment("a").values(s).sum(), expected, atol=1e-5)


def test_regularisers_are_sums_over_pixels():
    s = seen()
    image = s.images
    assert torch.allclose(Contrast().values(s), (image - 0.5).abs().sum((1, 2, 3)))
    down, across = image[:, :, 1:] - image[:, :, :-1], image[..., 1:] - image[..., :-1]
    expected = down.abs().sum((1, 2, 3)) + across.abs().sum((1, 2, 3))
    assert torch.allclose(TotalVariation().values(s), expected)
    assert Distance(image[0]).values(s)[0] == 0
    with pytest.raises(ShapeError, match="the rendered one's shape"):
        Distance(torch.zeros(3, 2, 2)).values(s)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Channel("a", 5), r"channel of 'a' must be in 0 … 4; got 5"),
        (Neuron("a", -1), r"channel of 'a' must be in 0 … 4; got -1"),
        (Neuron("a", 0, (4, 0)), r"within 4 rows and 6 columns; got \(4, 0\)"),
        (Direction("a", torch.ones(3)), r"must have 5 entries; got \[3\]"),
        (Direction("a", torch.zeros(5)), "must be finite and not zero; got length 0"),
        (1 * Channel("a", 0) + Channel("b", 9), "got 9"),
        (Channel("a", 0) * Channel("b", 8), "got 8"),
    ],
)
def test_what_is_not_there_is_refused(target, message):
    with pytest.raises((ValueRangeError, ShapeError), match=message):
        target.check(SHAPES)
