from functools import cache

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.testbeds import superposition
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.hinges import TARGETS
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Grid
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.superposition import KINDS, LARGE, PACKING, build_packed
from modelassay.testbeds.superposition_known import known_of_dictionary, known_without_training
from modelassay.testbeds.superposition_model import (
    HINGES,
    PackedCircuits,
    Packing,
    activation_score,
    draw_inputs,
    effective_latents,
    model_score,
    of_circuits,
    packed_circuits,
)
from modelassay.testbeds.testbed import Size, Testbed

SMALL = Packing(
    n_neurons=120, n_circuits=160, active=2, scored=160, n_data=6000, n_interventional=1000
)
SIZE = Size(width=320, k=4, tokens=120_000, batch_tokens=512)


def build_small(seed: int) -> Testbed:
    return build_packed("small", SMALL, SIZE, seed)


@cache
def small() -> Testbed:
    return build_small(0)


@cache
def full() -> Testbed:
    return KINDS[0].build(0)


def trunk_of(testbed: Testbed) -> PackedCircuits:
    trunk = testbed.arms[0].subject.module.get_submodule("trunk")
    assert isinstance(trunk, PackedCircuits)
    return trunk


def test_a_small_one_conforms() -> None:
    kind = TestbedKind(name="small", title="Small", claim="For tests.", build=build_small)
    assert [check for check in conformance(kind) if not check.passed] == []


@pytest.mark.slow
def test_the_full_one_conforms() -> None:
    assert [check for check in conformance(KINDS[0]) if not check.passed] == []


def test_the_known_table_is_reproduced() -> None:
    found = known_without_training(full().arms[0], trunk_of(full()), 0)
    assert len(found) == 13
    assert [number.name for number in found if not number.reproduced] == []


@pytest.mark.slow
def test_the_known_sparse_dictionary_is_reproduced() -> None:
    found = known_of_dictionary(full().arms[0], trunk_of(full()), 0)
    assert [number.name for number in found if not number.reproduced] == []


def test_neurons_are_what_their_active_circuits_want() -> None:
    # Neuron 3 belongs to both circuits: to the first with slot 0, to the second with slot 6.
    first, second = torch.arange(3, 13), torch.tensor([20, 21, 22, 23, 24, 25, 3, 26, 27, 28])
    trunk = PackedCircuits(torch.stack([first, second]), 30)
    neurons = trunk(torch.tensor([[[0, 0.9], [1, -0.5]]]))[0]
    assert float(neurons[3]) == pytest.approx((0.9 - 0) + (0.5 - 0.2))
    assert float(neurons[4]) == pytest.approx(0.9 - 0.2)
    assert float(neurons[8]) == 0  # opens to the left, x is positive
    assert float(neurons[29]) == 0  # nobody's
    alone = trunk(torch.tensor([[[0, 0.9]]]))[0]
    assert torch.allclose(alone[3:13], HINGES(torch.tensor([0.9]))[0])


def test_circuits_that_are_off_leave_no_trace() -> None:
    arm = small().arms[0]
    values = arm.model_truth.values(arm.data)
    assert (values != 0).sum(1).float().mean() == pytest.approx(SMALL.active, abs=0.01)
    unowned = trunk_of(small()).spread(torch.ones(10), 160)
    on = of_circuits(arm.data, torch.ones(arm.data.shape[:2]), 160)
    reachable = on @ unowned > 0
    assert (arm.activations[~reachable] == 0).all()


def test_active_circuits_differ_and_x_fills_its_range() -> None:
    inputs = draw_inputs(SMALL, 5000, torch.Generator().manual_seed(0))
    assert (inputs[:, 0, 0] != inputs[:, 1, 0]).all()
    counts = inputs[..., 0].long().flatten().bincount(minlength=160)
    assert counts.min() > 25
    assert float(inputs[..., 1].min()) < -0.99
    assert float(inputs[..., 1].max()) > 0.99


def test_circuits_share_the_neurons_that_chance_gives_them() -> None:
    owned = trunk_of(full()).spread(torch.ones(10), 800)
    shared = (owned @ owned.T).fill_diagonal_(0).sum() / (800 * 799)
    assert float(owned.sum(0).mean()) == 20
    assert float(shared) == pytest.approx(10**2 / 400, abs=0.005)


@pytest.mark.parametrize(("name", "expected"), [("square", 0.991), ("sine", 0.933)])
def test_readers_follow_their_targets_under_load(name: str, expected: float) -> None:
    arm = full().arm(name)
    read = arm.output(inputs=arm.interventional).gather(1, arm.interventional[..., 0].long())
    both = torch.stack([read.flatten(), TARGETS[name](arm.interventional[..., 1]).flatten()])
    assert float(torch.corrcoef(both)[0, 1]) == pytest.approx(expected, abs=0.01)


def test_a_sample_of_circuits_scores_as_if_there_were_no_others() -> None:
    few = Packing(
        n_neurons=120, n_circuits=160, active=2, scored=40, n_data=500, n_interventional=500
    )
    arm = build_packed("few", few, Size(width=80, k=4), 0).arms[0]
    whole = small().arms[0]
    assert torch.equal(
        arm.model_truth.values(whole.data), whole.model_truth.values(whole.data)[:, :40]
    )
    assert arm.model_truth.covectors is not None
    assert whole.model_truth.covectors is not None
    assert torch.equal(arm.model_truth.covectors, whole.model_truth.covectors[:40])


def test_the_large_one_has_the_same_load_and_as_many_examples() -> None:
    def load(packing: Packing) -> float:
        return (packing.active - 1) * len(HINGES) ** 2 / packing.n_neurons

    def examples(packing: Packing) -> float:
        return packing.n_data * packing.active / packing.n_circuits

    assert load(LARGE) == pytest.approx(load(PACKING), rel=0.15)
    assert examples(LARGE) == examples(PACKING) == 50
    assert [kind.slow for kind in KINDS] == [False, True]


def test_scores_know_the_truth_and_do_not_depend_on_scale() -> None:
    trunk = packed_circuits(SMALL, 0)
    covectors = trunk.spread(HINGES.read_out(torch.square).weights.float(), 160)
    assert model_score(3 * covectors, covectors) == pytest.approx(1)
    assert activation_score(3 * covectors, trunk) == pytest.approx(1)
    assert activation_score(torch.ones(1, 120), trunk) == pytest.approx((10 / 120) ** 0.5)
    on = torch.ones(4, 1, dtype=torch.bool)
    halves = torch.stack([covectors[0], 2 * covectors[0]])
    values = torch.tensor([[2.0, 1.0]]).expand(4, 2)
    assert effective_latents(values, halves, covectors[:1], on) == pytest.approx(2)


def test_a_trained_dictionary_lives_in_circuits_and_misses_what_is_read() -> None:
    arm = small().arms[0]
    found = METHODS["topk"].make(arm, small().size, 0)
    error = (arm.activations - found(arm.activations)).square().sum()
    assert error / (arm.activations - arm.activations.mean(0)).square().sum() < 0.4
    own = small().own_scores(arm, found)
    chance = small().own_scores(arm, METHODS["random"].make(arm, small().size, 0))
    assert own["activation_projection"] > chance["activation_projection"] + 0.1
    assert own["model_cosine"] < 0.7
    assert own["n_eff"] > 2
    assert small().affinities(found)[0] < 0.8


def test_a_basis_cannot_hold_more_circuits_than_neurons() -> None:
    arm = small().arms[0]
    for method in ("pca", "lib"):
        own = small().own_scores(arm, METHODS[method].make(arm, small().size, 0))
        assert own["model_cosine"] < 0.5
        assert own["n_eff"] > 20


def test_pictures_show_a_loaded_read_out_and_every_methods_scores() -> None:
    arm = small().arms[0]
    made = {name: METHODS[name].make(arm, small().size, 0) for name in ("neurons", "pca")}
    assert len(small().draw({})) == 1
    read_out, _, table = small().draw(made)
    assert not isinstance(read_out, Grid)
    assert len(read_out.marks[1].x) > 20
    assert isinstance(table, Grid)
    assert float(table.values[0, 3]) == pytest.approx(1)  # neurons lie in circuits


def test_impossible_packings_are_refused() -> None:
    def packing(**changes: int) -> Packing:
        numbers = {"n_neurons": 20, "n_circuits": 4, "active": 1, "scored": 4} | changes
        return Packing(n_data=10, n_interventional=10, **numbers)

    with pytest.raises(ValueRangeError, match="each of a circuit's 10 slots; got 9"):
        packing(n_neurons=9)
    with pytest.raises(ValueRangeError, match=r"active must be between 1 and .* 4; got 5"):
        packing(active=5)
    with pytest.raises(ValueRangeError, match=r"scored must be between 1 and .* 4; got 0"):
        packing(scored=0)


def test_only_the_size_of_the_table_has_known_numbers() -> None:
    assert tuple(small().known()) == ()
    assert superposition.PACKING.n_circuits == 800
