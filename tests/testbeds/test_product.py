"""T3: the readers, the interaction index, conformance, known numbers, and a real run."""

import math
from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.product import KINDS, World, own_scores
from modelassay.testbeds.product_known import random_indices, share_below
from modelassay.testbeds.product_readers import cell_means, interaction_index, parity_of
from modelassay.testbeds.scores import beyond_chance, discrimination
from modelassay.testbeds.testbed import Testbed

KIND = {kind.name: kind for kind in KINDS}
WORLD = World(colours=4, shapes=4)


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return KIND["T3.4x4"].build(0)


@pytest.mark.parametrize("name", KIND)
def test_everything_conforms(name):
    for check in conformance(KIND[name]):
        assert check.passed, check


@pytest.mark.parametrize("name", KIND)
def test_every_known_number_is_reproduced(name):
    known = KIND[name].build(0).known()
    assert len(known) >= 9
    for number in known:
        assert number.reproduced, number


def test_the_readers_compute_what_they_say(testbed):
    inputs = torch.zeros(3, 4 + 4 + 8)
    inputs[:, 1] = 1
    inputs[0, 4 + 2] = inputs[1, 4 + 3] = 1  # colour 1 with shape 2, with shape 3, with none
    additive, conjunction, xor = (arm.output(None, inputs) for arm in testbed.arms)
    reader = testbed.arm("conjunction").subject.module.reader
    torch.testing.assert_close(conjunction[0], reader.table[1 * 4 + 2], atol=1e-5, rtol=0)
    assert float(conjunction[2].norm()) < 1e-5
    output = testbed.arm("xor").subject.module.reader.output
    torch.testing.assert_close(xor[:2], torch.stack([-output, output]), atol=1e-5, rtol=0)
    assert float(xor[2].norm()) < 1e-5
    alone = inputs.clone()
    alone[:, 1] = 0
    by_parts = testbed.arm("additive").output(None, alone) + additive[2]
    torch.testing.assert_close(additive, by_parts, atol=1e-5, rtol=0)


def test_model_truths_are_what_the_readers_read(testbed):
    for arm in testbed.arms:
        values = arm.model_truth.values(arm.interventional)
        if arm.model_truth.covectors is None:
            reader = arm.subject.module.reader
            read = parity_of(*(arm.interventional_activations @ reader.covectors.T).unbind(1))[
                :, None
            ]
        else:
            read = arm.interventional_activations @ arm.model_truth.covectors.T
            read = (read - 1).relu() if arm.name == "conjunction" else read
        torch.testing.assert_close(values, read, atol=1e-5, rtol=0)


def test_the_interaction_index_has_its_extremes():
    rows, columns = torch.randn(5, 1, 3), torch.randn(1, 4, 3)
    assert interaction_index(rows + columns) == pytest.approx(0, abs=1e-10)
    signs = torch.tensor([1.0, -1, 1, -1])
    assert interaction_index((signs[:, None] * signs)[..., None]) == pytest.approx(1)
    mixed = rows + columns + torch.randn(5, 4, 3)
    assert 0 < interaction_index(mixed) < 1
    assert interaction_index(7 * mixed + 3) == pytest.approx(interaction_index(mixed))
    assert math.isnan(interaction_index(torch.full((2, 2, 1), 0.3)))


def test_random_tables_follow_their_law():
    drawn = random_indices(4, 4, 2000, generator(3))
    for index in (0.3, 0.6, 0.745, 0.9):
        share = float((drawn < index).double().mean())
        assert share == pytest.approx(share_below(index, 4, 4), abs=0.045)


def test_cell_means_are_the_means_of_their_cells():
    outputs = torch.arange(8.0)[:, None]
    cells = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
    found = cell_means(outputs, cells, colours=2, shapes=2)
    assert found[..., 0].tolist() == [[2, 3], [4, 5]]
    with pytest.raises(ShapeError, match="Every one of the 6 pairs must occur"):
        cell_means(outputs, cells, colours=2, shapes=3)


def test_sparse_coding_finds_pairs_whatever_the_model_reads(testbed):
    size = replace(testbed.size, tokens=200_000, batch_tokens=256)
    found = METHODS["matryoshka"].make(testbed.arms[0], size, 0)
    scores = {arm.name: testbed.scores(arm, found) for arm in testbed.arms}
    assert scores["additive"].v < 0.2 < scores["additive"].match_activations
    assert scores["xor"].v < 0.2
    assert scores["conjunction"].v == pytest.approx(0.5)
    table = [testbed.affinities(found) for _ in testbed.arms]
    assert beyond_chance(discrimination(table), 3) == pytest.approx(0)
    own = {arm.name: own_scores(WORLD, arm, found) for arm in testbed.arms}
    assert own["additive"]["composed"] > own["additive"]["product"]
    # The index tells the models apart through any faithful reconstruction.
    assert own["additive"]["interaction_index"] < 0.05
    assert own["xor"]["interaction_index"] > 0.95
    assert 0.3 < own["conjunction"]["interaction_index"] < 0.9
    drawn = testbed.draw({"topk": found})
    assert [grid.values.shape for grid in drawn] == [(16, 4)]


def test_pca_finds_neither_and_keeps_the_index(testbed):
    arm = testbed.arm("conjunction")
    pca = METHODS["pca"].make(arm, testbed.size, 0)
    assert testbed.scores(arm, pca).found == "neither"
    assert own_scores(WORLD, arm, pca)["interaction_index_error"] < 1e-3


def test_data_have_one_colour_and_shape_and_interventional_inputs_need_not(testbed):
    arm = testbed.arms[0]
    for part in (arm.data[:, :4], arm.data[:, 4:8]):
        assert bool((part.sum(1) == 1).all())
    on = (arm.interventional[:, :4] > 0).sum(1)
    assert 0.7 < float((on == 1).float().mean()) < 0.95
    correlation = torch.corrcoef(arm.interventional.T)[:4, 4:8]
    assert float(correlation.abs().max()) < 0.05
