import math
from dataclasses import replace

import pytest
import torch

from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import ReLUActivation
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.controls import KINDS
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Grid
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.repeated import D, memorised, repeated_input, shuffled
from modelassay.testbeds.scores import MISSED
from modelassay.testbeds.scrambled import Couplings, draw_features, linear_r2
from modelassay.testbeds.testbed import Testbed
from modelassay.testbeds.toy_model import ToyModel, alive, capacity_growth

BUILT: dict[str, Testbed] = {}


def built(name: str) -> Testbed:
    if name not in BUILT:
        BUILT[name] = next(kind for kind in KINDS if kind.name == name).build(0)
    return BUILT[name]


def relu_dictionary(rows: torch.Tensor) -> Dictionary:
    return Dictionary(
        W_enc=rows.T,
        b_enc=torch.zeros(len(rows)),
        W_dec=rows,
        b_dec=torch.zeros(rows.shape[1]),
        activation=ReLUActivation(),
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_everything_conforms(kind: TestbedKind) -> None:
    for check in conformance(kind):
        assert check.passed, check


@pytest.mark.parametrize("name", ["T10.toy_model", "T10.repeated", "T10.scrambled"])
def test_known_numbers_are_reproduced(name: str) -> None:
    known = built(name).known()
    assert known
    for number in known:
        assert number.reproduced, number


def test_the_dimensionality_of_a_regular_polygon_is_two_over_its_corners() -> None:
    for corners in (3, 5, 8):
        angles = torch.arange(corners) * 2 * math.pi / corners
        polygon = ToyModel(
            weight=1.3 * torch.stack([angles.cos(), angles.sin()]), bias=torch.zeros(corners)
        )
        expected = torch.full((corners,), 2 / corners)
        assert torch.allclose(polygon.dimensionalities(), expected, atol=1e-6)
    assert ToyModel(weight=torch.eye(3), bias=torch.zeros(3)).dimensionalities().tolist() == [1] * 3


def test_capacity_growth_is_nought_for_one_latent_a_feature_and_one_for_splitting() -> None:
    assert capacity_growth(40, 160, 40) == 0
    assert capacity_growth(160, 160, 40) == 1
    assert math.isnan(capacity_growth(10, 40, 40))
    assert math.isnan(capacity_growth(0, 160, 40))


def test_latents_that_never_fire_are_not_alive() -> None:
    rows = torch.tensor([[1.0, 0], [-1, 0], [0, 1]])
    assert alive(relu_dictionary(rows), torch.tensor([[1.0, -1], [2, -3]])) == 1


def test_the_toy_model_is_pictured_and_its_growth_scored() -> None:
    testbed = built("T10.toy_model")
    arm = testbed.arm("features")
    pca = METHODS["pca"].make(arm, testbed.size, 0)
    assert testbed.own_scores(arm, pca)["alive"] == 10
    growth, pentagon = testbed.draw({"pca": pca})
    assert "alive" in growth.title or "fire" in growth.title
    assert "Five features" in pentagon.title


def test_the_repeated_input_is_its_own_share_of_the_data() -> None:
    arm = built("T10.repeated").arms[0]
    repeated = repeated_input(0)
    share = float((arm.data == repeated).all(1).float().mean())
    assert share == pytest.approx(0.3, abs=0.02)
    assert float(arm.activations_truth.values(arm.data).mean()) == pytest.approx(share)


def test_shuffling_keeps_each_coordinates_values_and_breaks_their_ties() -> None:
    inputs = torch.randn(2000, 1, generator=derived(0, "test")).expand(2000, 3)
    mixed = shuffled(inputs, derived(1, "test"))
    assert torch.equal(mixed.sort(0).values, inputs.sort(0).values)
    assert float(torch.corrcoef(mixed.T)[0, 1].abs()) < 0.1


def test_a_latent_for_the_repeated_input_is_noticed_and_three_for_its_parts_as_well() -> None:
    point = torch.zeros(1, D)
    point[0, :3] = torch.tensor([0.6, 0.6, -0.8])
    memory = memorised(relu_dictionary(point), point)
    assert memory["memory_cosine"] == pytest.approx(1)
    assert memory["memory_l0"] == 1
    parts = memorised(relu_dictionary(torch.cat([torch.eye(D), -torch.eye(D)])), point)
    assert parts["memory_cosine"] == pytest.approx(0.8 / point.norm().item())
    assert parts["memory_l0"] == 3


def test_sparse_coding_remembers_the_repeated_input() -> None:
    testbed = built("T10.repeated")
    arm = testbed.arms[0]
    topk = METHODS["topk"].make(arm, replace(testbed.size, tokens=100_000), 0)
    own = testbed.own_scores(arm, topk)
    assert own["memory_cosine"] > 0.9  # its three coordinates alone would give 0.8 at most
    (grid,) = testbed.draw({"topk": topk})
    assert isinstance(grid, Grid)
    assert len(grid.row_names) == 2 * D + 1


def test_couplings_are_undone_and_leave_plain_features_alone() -> None:
    features = draw_features(500, derived(0, "test"))
    couplings = Couplings(derived(1, "test"))
    code = couplings(features)
    assert torch.equal(code[:, :8], features[:, :8])
    assert float((code - features)[:, 8:].abs().mean()) > 1
    assert torch.allclose(couplings.undo(code), features, atol=1e-3)


def test_linear_r2_is_one_for_a_linear_map_and_nought_for_noise() -> None:
    values = torch.randn(1000, 3, generator=derived(0, "test"))
    values = torch.cat([values, torch.zeros(1000, 1)], 1)  # a silent latent
    assert linear_r2(values, values[:, :2] * 3 + 1) == pytest.approx(1)
    noise = torch.randn(1000, 2, generator=derived(1, "test"))
    assert abs(linear_r2(values, noise)) < 0.05


def test_what_lies_open_is_found_and_what_is_used_is_not() -> None:
    testbed = built("T10.scrambled")
    decoder = testbed.arm("decoder")
    topk = METHODS["topk"].make(decoder, replace(testbed.size, tokens=200_000), 0)
    scores = testbed.scores(decoder, topk)
    assert scores.match_activations > 0.5
    assert scores.match_model < 0.1
    assert testbed.own_scores(decoder, topk)["read_linear_r2"] < 0.15


@pytest.mark.parametrize("method", ["neurons", "pca", "topk"])
def test_nothing_is_found_in_random_weights(method: str) -> None:
    testbed = built("T10.reinitialised")
    assert not testbed.known()
    for arm in testbed.arms:
        made = METHODS[method].make(arm, replace(testbed.size, tokens=50_000), 0)
        scores = testbed.scores(arm, made)
        assert scores.found == "neither"
        assert scores.match_model < MISSED / 2
