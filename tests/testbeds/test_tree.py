"""T7: a forest whose levels are read exactly, and the tree of feature splitting."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Grid
from modelassay.testbeds.splitting import ancestors, effects, splitting_score, tree_distance
from modelassay.testbeds.testbed import Testbed
from modelassay.testbeds.tree import KINDS, SIZE, build, rho_if_roots_decide
from modelassay.testbeds.tree_data import (
    N_CHILDREN,
    N_LEAVES,
    N_NODES,
    N_ROOTS,
    make_forest,
    node_values,
    parents_of,
)


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return build(0)


def test_everything_conforms():
    for check in conformance(KINDS[0]):
        assert check.passed, check


def test_the_known_numbers_are_reproduced(testbed: Testbed):
    for number in testbed.known():
        assert number.reproduced, number
    assert rho_if_roots_decide() == pytest.approx(0.9987, abs=1e-4)


def test_every_node_is_read_exactly_though_there_are_more_than_dimensions():
    forest = make_forest(0)
    torch.testing.assert_close(forest.directions.norm(dim=1), torch.ones(N_NODES))
    assert int(torch.linalg.matrix_rank(forest.directions)) == 64
    for independent in (False, True):
        values = node_values(0, "test", 2000, independent=independent)
        read = (values @ forest.directions @ forest.covectors.T).relu()
        torch.testing.assert_close(read, values, atol=1e-5, rtol=0)


def test_a_child_is_active_only_with_its_parent():
    values = node_values(0, "test", 2000, independent=False)
    roots, children, leaves = values.split([N_ROOTS, N_CHILDREN, N_LEAVES], 1)
    on = children > 0
    torch.testing.assert_close(children[on], roots[:, parents_of(N_CHILDREN)][on])
    assert bool((children[:, parents_of(N_LEAVES)][leaves > 0] > 0).all())
    # At most one child of each parent.
    assert int((children > 0).reshape(-1, N_ROOTS, 4).sum(2).max()) == 1
    assert all(bool((level > 0).any(0).all()) for level in (roots, children, leaves))


def test_sparse_coding_splits_as_the_data_does_whatever_is_used(testbed: Testbed):
    size = replace(SIZE, tokens=100_000)
    relu = METHODS["relu_l1"].make(testbed.arms[0], size, 0)
    roots, leaves, regrouped = (testbed.own_scores(arm, relu) for arm in testbed.arms)
    assert roots["splitting"] > 0.1
    assert abs(leaves["splitting"]) < 0.1
    assert abs(regrouped["splitting"]) < 0.1
    (grid,) = testbed.draw({"ReLU": relu})
    assert isinstance(grid, Grid)
    levels = grid.values
    assert levels[0, 0] > levels[0, 1] > levels[0, 2]  # eight latents: the roots
    assert levels[1, 1] > levels[0, 1]  # 32: the children


def test_ancestors_are_the_nearest_directions():
    wide = torch.tensor([[1.0, 0, 0.1], [1, 0, -0.1], [0, 1, 0], [0, 0, 1]])
    middle = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0.2, 1]])
    narrow = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    lineage = ancestors(wide, [narrow, middle])
    assert lineage.tolist() == [[0, 1], [0, 1], [1, 0], [1, 2]]
    assert tree_distance(lineage).tolist() == [
        [0, 1, 3, 3],
        [1, 0, 3, 3],
        [3, 3, 0, 2],
        [3, 3, 2, 0],
    ]


def test_effects_are_mean_jacobians_where_a_latent_is_active():
    weight = torch.tensor([[1.0, 0], [0, 2]])
    x = torch.tensor([[1.0, 1], [1, -1], [-1, 1]])
    values = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    # ReLU: the second output sees latent 0 on one of its two inputs.
    found = effects(lambda rows: (rows @ weight).relu(), x, values, torch.ones(2, 2))
    assert found.tolist() == [[1, 1], [0, 2]]
    with pytest.raises(ValueRangeError, match="none for latent 1"):
        effects(lambda rows: rows, x, values * torch.tensor([1.0, 0]), torch.ones(2, 2))


def test_the_splitting_score_of_known_effects():
    lineage = torch.tensor([[0], [0], [1], [1]])
    alike = torch.tensor([[0.0], [0.1], [5], [5.2]])
    assert splitting_score(lineage, alike) == pytest.approx(0.83, abs=0.01)
    assert splitting_score(lineage, torch.ones(4, 1)) == 0
    assert splitting_score(torch.zeros(4, 1).long(), alike) == 0
