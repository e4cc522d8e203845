import math
from dataclasses import replace

import pytest
import torch

from modelassay.decompositions.linear import PCA
from modelassay.testbeds.conformance import conformance, oracle_scores
from modelassay.testbeds.curve import KINDS, own_scores, tile_locality
from modelassay.testbeds.curve_known import unexplained_by_tiles
from modelassay.testbeds.curve_model import (
    TILES,
    Curve,
    blind_reader,
    curve_trunk,
    make_tiles,
    targets,
)
from modelassay.testbeds.faithfulness import (
    faithfulness,
    smallest_canonical_correlation,
    unexplained,
)
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Testbed

CIRCLE = Curve(p=1, q=1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def circle() -> Testbed:
    return KINDS[0].build(0)


def test_everything_conforms() -> None:
    for check in conformance(KINDS[0]):
        assert check.passed, check


@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: kind.name)
def test_the_oracles_separate_on_lissajous_curves(kind: TestbedKind) -> None:
    testbed = kind.build(0)
    for arm in testbed.arms:
        assert oracle_scores(testbed, arm, arm.model_truth).v > 0.99
        assert oracle_scores(testbed, arm, arm.activations_truth).v < 0.01


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_known_numbers_come_out(kind: TestbedKind) -> None:
    for number in kind.build(1).known():
        assert number.reproduced, number


def test_the_blind_reader_reads_the_two_functions() -> None:
    trunk = curve_trunk(generator())
    square = 2 * torch.rand(4000, 2, generator=generator(1)) - 1
    read = blind_reader(trunk)(trunk(square))
    assert unexplained(read, targets(square)) < 0.01
    # Additive: g does not see y.
    moved = torch.stack([square[:, 0], square[:, 1].roll(1)], 1)
    assert torch.allclose(blind_reader(trunk)(trunk(moved))[:, 0], read[:, 0], atol=1e-3)


def test_the_aware_reader_reads_the_place_on_the_curve(circle: Testbed) -> None:
    aware = circle.arm("aware")
    t = torch.linspace(0.1, 6.1, 50)
    on_curve = CIRCLE.points(t)
    inside = 0.9 * on_curve  # the same place, off the curve
    features = aware.model_truth.values(on_curve)
    assert unexplained(aware.model_truth.values(inside), features) < 0.1
    assert torch.allclose(aware.output(None, on_curve), features)


def test_every_tile_is_its_own_nearest() -> None:
    trunk = curve_trunk(generator())
    tiles = make_tiles(CIRCLE, trunk)
    assert torch.equal(tiles.nearest(trunk(CIRCLE.points(tiles.t))), torch.arange(TILES))


def test_shuffling_keeps_the_marginals_and_breaks_the_curve() -> None:
    on, off = (f(20_000, generator()) for f in (CIRCLE.sample, CIRCLE.shuffled))
    assert torch.allclose(on.square().sum(1), torch.ones(20_000), atol=1e-5)
    assert off.square().sum(1).std() > 0.4
    assert torch.allclose(on.sort(0).values, off.sort(0).values, atol=0.1)


def test_a_space_filling_curve_blinds_the_test() -> None:
    round_, filling = (
        unexplained_by_tiles(curve, generator()) for curve in (CIRCLE, Curve(p=31, q=29))
    )
    assert round_.tiles_off > 1000 * round_.tiles_on  # tiles betray themselves off the circle
    assert filling.tiles_off < 1.5 * filling.tiles_on  # and nowhere here


def test_a_read_out_fitted_on_the_circle_is_wrong_off_it() -> None:
    found = unexplained_by_tiles(CIRCLE, generator())
    assert found.linear_on < 1e-3 < 0.3 < found.linear_off


def test_the_local_interaction_basis_finds_the_plane_and_pca_does_not(circle: Testbed) -> None:
    arm = circle.arm("blind")
    lib, pca = (METHODS[name].make(arm, circle.size, 0) for name in ("lib", "pca"))
    found = circle.scores(arm, lib)
    assert found.v > 0.99
    assert found.match_model > 0.8
    assert circle.own_scores(arm, lib)["subspace_overlap"] > 0.9
    assert circle.own_scores(arm, pca)["subspace_overlap"] < 0.8
    assert circle.scores(arm, pca).found == "neither"
    assert "subspace_overlap" not in circle.own_scores(circle.arm("aware"), pca)


def test_sparse_coding_makes_local_latents_and_never_finds_the_reads(circle: Testbed) -> None:
    arm = circle.arms[0]
    size = replace(circle.size, tokens=30_000, batch_tokens=256)
    topk, pca = (METHODS[name].make(arm, size, 0) for name in ("topk", "pca"))
    tiles = make_tiles(CIRCLE, arm.subject.module.get_submodule("trunk"))
    assert isinstance(pca, PCA)
    assert tile_locality(tiles, arm, topk) > 0.8
    assert tile_locality(tiles, arm, pca) < 0.3
    scores = circle.scores(arm, topk)
    assert scores.match_model < 0.2
    own = own_scores(tiles, arm, topk)
    assert own["on_curve_faithfulness"] > own["off_manifold_faithfulness"]


def test_neurons_are_faithful_everywhere(circle: Testbed) -> None:
    neurons = METHODS["neurons"].make(circle.arms[0], circle.size, 0)
    assert faithfulness(circle.arms[0], neurons) == pytest.approx(1)


def test_canonical_correlation_sees_spans_not_bases() -> None:
    values = torch.randn(500, 3, generator=generator())
    turned = values @ torch.randn(3, 3, generator=generator(1)) + 5
    assert smallest_canonical_correlation(turned, values) == pytest.approx(1)
    other = torch.randn(500, 3, generator=generator(2))
    assert smallest_canonical_correlation(other, values) < 0.2
    assert smallest_canonical_correlation(values[:, :2], values) == 0
    assert smallest_canonical_correlation(values[:, :2], values[:, :1]) == pytest.approx(1)


def test_the_pictures_show_curve_and_tiles(circle: Testbed) -> None:
    neurons = METHODS["neurons"].make(circle.arms[0], circle.size, 0)
    curve, oracle, exact = circle.draw({"pca": neurons, "random": neurons})
    assert isinstance(curve, Picture)
    assert isinstance(oracle, Picture)
    assert isinstance(exact, Picture)
    assert len(curve.marks[-1].x) == TILES
    found = exact.marks[0]
    assert found.title == "pca"
    assert torch.allclose(found.x, found.y, atol=1e-3)
    assert math.isfinite(float(oracle.marks[0].y.sum()))
    assert not torch.allclose(oracle.marks[0].x, oracle.marks[0].y, atol=1e-1)
