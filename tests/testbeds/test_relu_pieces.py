import dataclasses
from functools import cache

import pytest
import torch

from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Grid, Picture
from modelassay.testbeds.relu_pieces import KINDS
from modelassay.testbeds.scores import cosine, discrimination
from modelassay.testbeds.testbed import Testbed

KIND = KINDS[0]


@cache
def built() -> Testbed:
    testbed = KIND.build(0)
    return dataclasses.replace(testbed, size=dataclasses.replace(testbed.size, tokens=40_000))


def covectors() -> torch.Tensor:
    found = [arm.model_truth.covectors for arm in built().arms]
    return torch.cat([each for each in found if each is not None])


def test_the_testbed_conforms() -> None:
    failed = [check for check in conformance(KIND) if not check.passed]
    assert not failed


def test_every_known_number_is_reproduced() -> None:
    found = built().known()
    assert len(found) == 20
    assert [number.name for number in found if not number.reproduced] == []


def test_each_reader_computes_its_target() -> None:
    targets = [torch.square, lambda x: x**3, torch.abs, lambda x: torch.sin(torch.pi * x)]
    for arm, target in zip(built().arms, targets, strict=True):
        assert (arm.output() - target(arm.data)).abs().max() < 0.04


def test_the_model_truth_is_the_output_without_its_bias() -> None:
    for arm in built().arms:
        rest = arm.output() - arm.model_truth.values(arm.data)
        assert float(rest.std()) < 1e-5


def test_the_pieces_add_up_to_the_activations() -> None:
    truth = built().arms[0].activations_truth
    assert truth.covectors is not None
    sums = truth.values(built().arms[0].data) @ truth.covectors
    assert torch.allclose(sums, built().arms[0].activations, atol=1e-5)


def test_pca_follows_x_squared_but_no_component_points_along_the_read_out() -> None:
    arm = built().arms[0]
    pca = METHODS["pca"].make(arm, built().size, 0)
    scores = pca.encode(arm.activations).dense()
    assert torch.corrcoef(torch.stack([scores[:, 1], arm.data[:, 0] ** 2]))[0, 1].abs() > 0.98
    assert built().own_scores(arm, pca)["cosine"] == pytest.approx(0.802, abs=0.01)
    assert built().scores(arm, pca).match_model < 0.2  # no better than random directions


def test_the_local_interaction_basis_finds_each_arms_read_out() -> None:
    table = []
    for number, arm in enumerate(built().arms):
        basis = METHODS["lib"].make(arm, built().size, 0)
        own = built().own_scores(arm, basis)
        assert basis.width == 1
        assert own["cosine"] == pytest.approx(1, abs=1e-4)
        assert own["n_eff"] == pytest.approx(1)
        assert int(cosine(basis.covectors, covectors())[0].argmax()) == number
        assert built().scores(arm, basis).found == "model"
        table.append(built().affinities(basis))
    assert discrimination(table) == 1


def test_a_trained_dictionary_explains_the_curve_and_not_the_reader() -> None:
    table = []
    for arm in built().arms[:1]:
        found = METHODS["topk"].make(arm, built().size, 0)
        error = (arm.activations - found(arm.activations)).square().sum()
        spread = (arm.activations - arm.activations.mean(0)).square().sum()
        assert error / spread < 0.1
        table.append(built().affinities(found))
        assert built().own_scores(arm, found)["n_eff"] > 1.5
    assert max(table[0]) < 0.8


def test_the_arms_read_different_directions() -> None:
    similarity = cosine(covectors(), covectors()).fill_diagonal_(0)
    assert similarity.max() < 0.8


def test_pictures_show_pieces_read_out_and_what_was_found() -> None:
    arm = built().arms[0]
    made = {name: METHODS[name].make(arm, built().size, 0) for name in ("pca", "lib")}
    alone = built().draw({})
    pieces, nearest, table = built().draw(made)
    assert len(alone) == 1
    assert isinstance(pieces, Picture)
    assert len(pieces.marks) == 11
    assert isinstance(nearest, Picture)
    read, _, basis = (mark.y for mark in nearest.marks)
    away = min(float((read - basis).abs().max()), float((read - 1 + basis).abs().max()))
    assert away < 1e-3  # up to sign, the basis' latent is the read-out
    assert isinstance(table, Grid)
    assert float(table.values[1, 0]) == pytest.approx(1, abs=1e-4)
