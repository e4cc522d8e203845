"""Units matched across networks whose relation is known."""

import copy

import pytest
import torch
from torch import nn

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.circuits.universality import match, moments
from modelassay.observe.visualize.image_input import UNIT
from tests.observe.circuits.models import seeded


def small(seed=0):
    return seeded(nn.Sequential(nn.Conv2d(3, 8, 5), nn.ReLU(), nn.Conv2d(8, 12, 3)), seed)


def batches(count=4):
    return [torch.rand(6, 3, 14, 14, generator=generator(seed)) for seed in range(count)]


def matched(first, second, layer="2", other=None):
    inputs = (UNIT, UNIT)
    return match(
        moments((first, layer), (second, other or layer), batches(), image_inputs=inputs), seed=0
    )


def test_a_network_with_its_units_reordered_is_matched_one_to_one():
    module, order = small(), torch.randperm(12, generator=generator(5))
    other = copy.deepcopy(module)
    with torch.no_grad():
        other[2].weight.copy_(module[2].weight[order])
        other[2].bias.copy_(module[2].bias[order])
    found = matched(module, other)
    assert torch.equal(order[found.assigned], torch.arange(12))
    assert torch.equal(found.partner, found.assigned)
    assert torch.allclose(found.best, torch.ones(12), atol=1e-5)
    assert (found.cka, found.svcca) == (pytest.approx(1), pytest.approx(1))
    assert found.shared == 1
    assert float(found.null_permuted.max()) < 0.5


def test_a_turned_space_is_the_same_space_without_the_same_units():
    module = small()
    other = copy.deepcopy(module)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator(3)))[0]
    with torch.no_grad():
        other[2].weight.copy_(torch.einsum("ab,bcij->acij", turn, module[2].weight))
        other[2].bias.copy_(turn @ module[2].bias)
    found = matched(module, other)
    assert (found.cka, found.svcca) == (pytest.approx(1, abs=1e-4), pytest.approx(1, abs=1e-4))
    assert float(found.best.mean()) < 0.9
    assert float(found.best.mean() - found.null_rotated.mean()) < 0.2


def test_correlations_are_those_of_all_places_at_once():
    first, second = small(), small(1)
    found = moments((first, "2"), (second, "0"), batches(), image_inputs=(UNIT, UNIT))
    assert found.n_images == 24
    same = moments((first, "2"), (second, "2"), batches(), image_inputs=(UNIT, UNIT))
    images = torch.cat(batches())
    one, two = (m(images).transpose(0, 1).flatten(1) for m in (first, second))
    expected = torch.corrcoef(torch.cat([one, two]))[:12, 12:]
    assert torch.allclose(same.correlation().float(), expected, atol=1e-5)
    assert same.n_places == one.shape[1]


def test_a_dead_channel_has_no_partner():
    module, other = small(), small(1)
    with torch.no_grad():
        module[2].weight[4] = 0
        other[2].weight[7] = 0
    found = matched(module, other)
    assert found.partner[4] == found.assigned[4] == -1
    assert bool(found.best[4].isnan())
    assert bool(found.one_to_one[4].isnan())
    assert 7 not in found.partner.tolist()
    assert int((found.assigned >= 0).sum()) == 11


def test_bad_input_is_named():
    module = small()
    pair = ((module, "2"), (module, "2"))
    with pytest.raises(TooFewTokensError, match="2 or more images; got 1"):
        moments(*pair, [torch.rand(1, 3, 14, 14, generator=generator(0))])
    with pytest.raises(TooFewTokensError, match="There must be a batch"):
        moments(*pair, [])
    with pytest.raises(ValueRangeError, match="must have values in 0 … 1"):
        moments(*pair, [batches()[0] * 255])
    with torch.no_grad():
        module[2].weight.zero_()
    with pytest.raises(TooFewTokensError, match="Both layers are dead"):
        matched(module, module)


def test_logits_are_not_compared_with_maps():
    classifier = seeded(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ShapeError, match="both have positions or both have none"):
        moments((small(), "2"), (classifier, "2"), batches())
