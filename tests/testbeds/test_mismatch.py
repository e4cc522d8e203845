import math
from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.knots import (
    crucial_knots,
    data_density,
    data_quantiles,
    even_knots,
    moment_curve,
    neurons_at,
)
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.mismatch import KINDS, KNOTS, TILES, build, latent_centres, tile_middles
from modelassay.testbeds.picture import Picture
from modelassay.testbeds.resolution import centres, resolution_score
from modelassay.testbeds.testbed import Testbed


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return build(0)


def test_everything_conforms() -> None:
    for check in conformance(KINDS[0]):
        assert check.passed, check


def test_the_construction_keeps_its_promises(testbed: Testbed) -> None:
    for number in testbed.known():
        assert number.reproduced, number


def test_a_neuron_is_one_at_its_knot_and_off_at_its_neighbours() -> None:
    for knots in (crucial_knots(0.15, KNOTS), even_knots(KNOTS), crucial_knots(0.95, KNOTS)):
        neurons = neurons_at(knots, torch.eye(10))
        values = neurons.values(moment_curve(knots))
        assert torch.allclose(values, torch.eye(KNOTS), atol=1e-3)


def test_the_curve_has_unit_length_vectors() -> None:
    t = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(moment_curve(t).norm(dim=1), torch.ones(50), atol=1e-6)
    assert torch.allclose(moment_curve(t), moment_curve(t + 1), atol=1e-4)


def test_half_of_the_knots_crowd_in_a_tenth() -> None:
    knots = crucial_knots(0.95, KNOTS)  # around the end of [0, 1)
    assert int((((knots - 0.95) % 1) < 0.1).sum()) == KNOTS // 2
    assert bool((knots.diff() > 0).all())


def test_data_are_rare_where_the_model_looks_closely(testbed: Testbed) -> None:
    t = testbed.arms[0].data[:, 0]
    for start in (0.15, 0.65):
        share = ((t > start) & (t < start + 0.1)).float().mean()
        assert float(share) == pytest.approx(0.1 * 0.2, abs=0.012)
    assert float(data_density(torch.tensor([0.45]))) == pytest.approx(1.8)
    assert torch.allclose(data_quantiles(torch.tensor([0.5])), torch.tensor([0.5]), atol=0.1)


def test_tiles_hold_equal_shares_of_the_data(testbed: Testbed) -> None:
    arm = testbed.arms[0]
    counts = arm.activations_truth.values(arm.data).sum(0)
    assert float(counts.sum()) == len(arm.data)
    assert 10 < float(counts.min()) < float(counts.max()) < 80  # Poisson, mean 40
    assert len(tile_middles()) == TILES


def test_the_reader_is_what_the_truth_says(testbed: Testbed) -> None:
    arm = testbed.arms[0]
    reader = arm.subject.module.get_submodule("reader")
    effects = reader.get_parameter("2.weight")  # [output, knot]
    values = arm.model_truth.values(arm.interventional)
    assert torch.allclose(arm.output(None, arm.interventional), values @ effects.T, atol=1e-2)


def test_resolution_says_whose_density_it_is() -> None:
    data = data_quantiles((torch.arange(4000) + 0.5) / 4000)
    model = crucial_knots(0.15, KNOTS)
    assert resolution_score(model, data=data, model=model) == pytest.approx(1)
    assert resolution_score(data[::8], data=data, model=model) < 0.01
    assert 0.1 < resolution_score(even_knots(200), data=data, model=model) < 0.9
    assert math.isnan(resolution_score(data[:0], data=data, model=model))
    assert math.isnan(resolution_score(data, data=data, model=data))
    with pytest.raises(ValueRangeError, match="each of 20 bins of t; got an empty one"):
        resolution_score(data, data=data[:100], model=model)


def test_a_centre_is_where_a_latent_is_largest() -> None:
    t = torch.tensor([0.1, 0.2, 0.3])
    values = torch.tensor([[0.0, 1, 0], [0, 0, -3], [0, 0.5, 0]])
    assert centres(values, t).tolist() == pytest.approx([0.1, 0.2])


def test_sparse_coding_is_the_same_in_all_arms_and_closer_to_the_data(testbed: Testbed) -> None:
    size = replace(testbed.size, tokens=60_000, batch_tokens=256)
    left, uniform, right = testbed.arms
    topk = METHODS["topk"].make(left, size, 0)
    assert torch.equal(topk.directions, METHODS["topk"].make(right, size, 0).directions)
    assert len(latent_centres(left, topk)) > 30  # it did learn pieces of the curve
    for arm in (left, right):
        own = testbed.own_scores(arm, topk)
        assert own["resolution"] < 0.5
        assert testbed.scores(arm, topk).match_model < 0.2
    # Directions that know nothing of the knots match them all the same.
    assert testbed.own_scores(uniform, topk)["decoder_match"] > 0.8


def test_pca_finds_neither_and_loses_nothing(testbed: Testbed) -> None:
    arm = testbed.arms[0]
    pca = METHODS["pca"].make(arm, testbed.size, 0)
    assert testbed.scores(arm, pca).found == "neither"
    own = testbed.own_scores(arm, pca)
    assert own["off_manifold_faithfulness"] == pytest.approx(1, abs=1e-3)
    assert own["decoder_match"] < 0.11  # ten directions for a hundred knots


def test_the_local_interaction_basis_finds_the_rank(testbed: Testbed) -> None:
    lib = METHODS["lib"].make(testbed.arms[0], testbed.size, 0)
    assert lib.width == 10


def test_the_pictures_show_densities_and_neurons(testbed: Testbed) -> None:
    pca = METHODS["pca"].make(testbed.arms[0], testbed.size, 0)
    densities, neurons = testbed.draw({"pca": pca})
    assert isinstance(densities, Picture)
    assert isinstance(neurons, Picture)
    assert [marks.role for marks in densities.marks] == ["data", "model", "found"]
    assert float(densities.marks[1].y.mean()) == pytest.approx(1)
    assert len(neurons.marks) > 50
