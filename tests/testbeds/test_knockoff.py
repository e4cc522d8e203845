"""T5: usable geometry, what co-activation has of it, and what a list reader cares."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.geometry.knockoff_readers import superposition_suffices
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.knockoff import KINDS, SIZE
from modelassay.testbeds.knockoff_gaps import gaps, original_of, performances
from modelassay.testbeds.knockoff_space import (
    draw_items,
    make_space,
    tasks,
    with_shuffled_labels,
)
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Grid
from modelassay.testbeds.testbed import Testbed

MIRRORED, EXCHANGEABLE = KINDS
SPACE = make_space(0)


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return MIRRORED.build(0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_everything_conforms(kind):
    for check in conformance(kind):
        assert check.passed, check


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_known_numbers_are_reproduced(kind):
    for number in kind.build(0).known():
        assert number.reproduced, number


def level_two(kind, labels: int) -> float:
    arm = kind.build(1).arms[0]
    space = make_space(1)
    found = gaps(
        original_of(space, arm.data), arm.data, lambda x: x, tasks(space), 1, labels=labels
    )
    return found["G K2"]


def test_superposition_suffices_only_if_co_activation_mirrors_geometry():
    assert level_two(MIRRORED, 50) > 0.8
    assert not superposition_suffices(level_two(EXCHANGEABLE, 500))


def test_exchanging_within_clusters_keeps_the_tree_and_loses_the_circle():
    inputs = draw_items(SPACE, 0, "data", 4000, mirrored=True)
    original = original_of(SPACE, inputs)
    day, _, hypernym, _ = tasks(SPACE)
    found = [gaps(original, inputs, lambda x: x, [task], 0)["G K4"] for task in (day, hypernym)]
    assert found[0] < 0.3
    assert found[1] > 0.9


def test_the_mlp_reads_geometry_too():
    inputs = draw_items(SPACE, 0, "data", 4000, mirrored=False)
    hypernym = tasks(SPACE)[2]
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=generator(0)))[0]
    random = torch.nn.functional.normalize(torch.randn(67, 32, generator=generator(1)), dim=1)
    real, turned, nothing = performances(
        hypernym,
        inputs,
        lambda x: x,
        [SPACE.directions, SPACE.directions @ rotation, random],
        reader="mlp",
        labels=1000,
        generator=generator(2),
    )
    assert min(real, turned) > 0.7
    assert nothing < 0.1


def test_items_are_unit_and_each_task_is_linear_in_the_space():
    torch.testing.assert_close(SPACE.directions.norm(dim=1), torch.ones(67))
    for task in tasks(SPACE):
        solved = torch.linalg.lstsq(SPACE.directions, task.targets).solution
        torch.testing.assert_close(SPACE.directions @ solved, task.targets, atol=1e-4, rtol=0)
        assert torch.stack(task.folds).sum(0).max() == 1
    assert bool((SPACE.thresholds < 1).all())


def test_shuffled_labels_are_the_same_labels():
    task = tasks(SPACE)[0]
    shuffled = with_shuffled_labels(task, generator(0))
    assert not torch.equal(shuffled.targets, task.targets)
    torch.testing.assert_close(shuffled.targets.sum(0), task.targets.sum(0))
    assert torch.equal(shuffled.targets[7:], task.targets[7:])  # other groups have none


def test_mirrored_co_activation_prefers_neighbours():
    near = SPACE.directions[:7] @ SPACE.directions[:7].T
    for mirrored in (True, False):
        week = draw_items(SPACE, 0, "test", 20_000, mirrored=mirrored)[:, :7]
        together = week.T @ week / len(week)
        assert (together[0, 1] > 2 * together[0, 3]) == mirrored
    assert near[0, 1] > near[0, 3]
    single = draw_items(SPACE, 0, "test", 2000, mirrored=None)
    assert all(int(single[:, SPACE.groups == group].sum(1).max()) == 1 for group in range(4))


def test_a_fitted_dictionary_has_a_high_second_level_whatever_the_data(testbed: Testbed):
    size = replace(SIZE, tokens=150_000)
    for each in (testbed, EXCHANGEABLE.build(0)):
        arm = each.arms[0]
        own = each.own_scores(arm, METHODS["topk"].make(arm, size, 0))
        assert own["G K0"] == 0
        assert own["G K1"] == pytest.approx(1, abs=0.05)
        # Its codes come from its directions, and correlate with them: no evidence about the data.
        assert own["G K2"] > 0.4


def test_pca_and_pictures(testbed: Testbed):
    arm = testbed.arms[0]
    pca = METHODS["pca"].make(arm, testbed.size, 0)
    assert testbed.own_scores(arm, pca)["perf"] > 0.99
    *weeks, grid = testbed.draw({"PCA": pca})
    assert len(weeks) == 3
    assert isinstance(grid, Grid)
    assert grid.row_names[-1] == "PCA"
    assert float(grid.values[:3, 0].abs().max()) == 0
