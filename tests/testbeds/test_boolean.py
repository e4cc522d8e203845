from dataclasses import replace

import pytest
import torch

from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import ReLUActivation
from modelassay.testbeds.arm import activations_at
from modelassay.testbeds.boolean import KINDS
from modelassay.testbeds.boolean_circuits import uniform_bits
from modelassay.testbeds.boolean_data import Bundles
from modelassay.testbeds.boolean_slots import draw_circuit
from modelassay.testbeds.boolean_universal import PAIRS, and_error_rate, draw_network
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Grid
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Testbed

BUILT: dict[str, Testbed] = {}


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> TestbedKind:
    return request.param


@pytest.fixture
def testbed(kind: TestbedKind) -> Testbed:
    if kind.name not in BUILT:
        BUILT[kind.name] = kind.build(0)
    return BUILT[kind.name]


def test_everything_conforms(kind: TestbedKind) -> None:
    for check in conformance(kind):
        assert check.passed, check


def test_known_numbers_are_reproduced(testbed: Testbed) -> None:
    known = testbed.known()
    assert known
    for number in known:
        assert number.reproduced, number


def test_the_readers_compute_their_circuit_of_the_gates_that_they_read(testbed: Testbed) -> None:
    for arm in testbed.arms:
        output = arm.output(inputs=arm.interventional)
        assert output.isfinite().all()
        read = arm.model_truth.covectors
        assert read is not None
        # What is orthogonal to everything that is read does not reach the output.
        null = torch.linalg.svd(read, full_matrices=True)[2][len(read) :]
        reader = arm.subject.module.get_submodule("reader")
        moved = arm.interventional_activations + torch.ones(len(null)) @ null
        assert torch.allclose(reader(moved), output, atol=1e-4)


def test_an_oracle_of_the_gates_keeps_all_hops_and_random_directions_none() -> None:
    testbed = BUILT.get("T8.slots") or KINDS[0].build(0)
    construction = draw_circuit(0)
    arm = testbed.arms[0]
    slots = construction.rotation.T
    oracle = Dictionary(  # every wire has a latent of its own
        W_enc=slots.T,
        b_enc=torch.zeros(len(slots)),
        W_dec=slots,
        b_dec=torch.zeros(len(slots)),
        activation=ReLUActivation(),
    )
    scores = testbed.own_scores(arm, oracle)
    assert scores["hops_kept"] == scores["gate_f1"] == 1
    random = METHODS["random"].make(arm, testbed.size, 0)
    assert testbed.own_scores(arm, random)["hops_kept"] == 0


def test_sparse_coding_finds_bundles_and_cannot_tell_the_arms_apart() -> None:
    testbed = BUILT.get("T8.slots") or KINDS[0].build(0)
    size = replace(testbed.size, tokens=100_000)
    one, other = (METHODS["topk"].make(arm, size, 0) for arm in testbed.arms)
    assert torch.equal(one.directions, other.directions)
    scores = testbed.scores(testbed.arms[0], one)
    assert scores.match_activations > 0.2 > scores.match_model
    own = testbed.own_scores(testbed.arms[0], one)
    assert own["composites_on_data"] > 0.8
    pca = METHODS["pca"].make(testbed.arms[0], size, 0)
    (grid,) = testbed.draw({"topk": one, "pca": pca})
    assert isinstance(grid, Grid)
    assert grid.values.shape == (16 + 12, 2)
    assert testbed.draw({}) == ()


def test_bundles_come_together_in_the_data() -> None:
    bundles = Bundles(n_bundles=3, together=0.3, alone=0.01)
    bits = bundles.draw(5000, derived(0, "test"))
    correlation = torch.corrcoef(bits.T)
    assert float(correlation[0, 1]) > 0.9
    assert float(correlation[0, 2].abs()) < 0.1
    assert torch.equal(bundles.truth().values(bits)[:, 1], bits[:, 2] * bits[:, 3])


def test_universal_and_holds_more_ands_than_neurons_and_misreads_dense_inputs() -> None:
    network = draw_network(0)
    assert len(PAIRS) == 276 > network.sets.shape[0]
    testbed = BUILT.get("T8.universal") or KINDS[1].build(0)
    arm = testbed.arms[0]
    sparse = and_error_rate(network, arm.interventional, arm.interventional_activations)
    dense = uniform_bits(500, 24, derived(0, "test"))
    hidden = activations_at(arm.subject, arm.site, dense)
    # It is made for sparse bits.
    assert and_error_rate(network, dense, hidden) > 20 * sparse
