import math
from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import NonFiniteError, ShapeError, UnknownNameError, ValueRangeError
from modelassay.testbeds.conformance import conformance, oracle_scores
from modelassay.testbeds.methods import METHODS, method_named
from modelassay.testbeds.registry import find
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth, is_active
from tests.testbeds.small import KINDS, N_FEATURES, arm, build, contrasts, linear, sparse_inputs

SIZE = Size(width=8, k=2, tokens=60_000, batch_tokens=256)


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return build(0)


def test_the_arms_activations_are_bit_identical(testbed: Testbed) -> None:
    one, other = testbed.arms
    assert torch.equal(one.activations, other.activations)
    assert not torch.equal(one.output(), other.output())


def test_everything_conforms() -> None:
    for check in conformance(KINDS[0]):
        assert check.passed, check


def test_oracles_score_one_and_nought(testbed: Testbed) -> None:
    for each in testbed.arms:
        assert oracle_scores(testbed, each, each.model_truth).v == 1
        assert oracle_scores(testbed, each, each.activations_truth).v == 0


def test_sparse_coding_finds_the_features_of_the_activations(testbed: Testbed) -> None:
    one, other = testbed.arms
    topk = METHODS["topk"].make(one, SIZE, 0)
    scores = testbed.scores(one, topk)
    assert scores.match_activations > 0.8
    assert scores.v < 0.2
    again = METHODS["topk"].make(other, SIZE, 0)
    assert torch.equal(topk.directions, again.directions)  # it cannot know in which arm it is


def test_looking_past_the_activations_finds_what_each_arm_reads(testbed: Testbed) -> None:
    bases = [METHODS["lib"].make(each, testbed.size, 0) for each in testbed.arms]
    assert [basis.width for basis in bases] == [4, 4]
    scores = [testbed.scores(a, b) for a, b in zip(testbed.arms, bases, strict=True)]
    for each in scores:
        # The subspace that is read, but no axis of it: all are used alike.
        assert each.match_model > 0.3 > each.match_activations


def test_the_output_through_neurons_is_the_models_own(testbed: Testbed) -> None:
    one = testbed.arms[0]
    neurons = METHODS["neurons"].make(one, testbed.size, 0)
    assert torch.allclose(one.output(neurons), one.output(), atol=1e-5)
    assert one.output(neurons, one.interventional).shape == (1500, 4)


def test_a_fifth_of_the_rows_is_held_out(testbed: Testbed) -> None:
    rows = testbed.arms[0].rows
    assert rows.select("heldout").n_tokens == 400
    assert torch.equal(rows.select("fit").moments().mean, rows.select("fit").moments().mean)


def test_arms_that_differ_at_the_site_are_refused() -> None:
    pairs = contrasts(list(range(N_FEATURES)))
    with pytest.raises(ValueRangeError, match=r"bit-identical activations; got 'a' and 'b'.* data"):
        Testbed(
            name="bad",
            seed=0,
            arms=(arm("a", pairs), arm("b", pairs.flip(1), data=sparse_inputs(1, 2000, "data"))),
            size=SIZE,
        )


def test_arms_with_the_same_truth_are_refused() -> None:
    pairs = contrasts(list(range(N_FEATURES)))
    trunk = arm("a", pairs).subject.module.get_submodule("trunk")
    with pytest.raises(ValueRangeError, match="must differ; got 'a' and 'b'"):
        Testbed(
            name="bad",
            seed=0,
            arms=(arm("a", pairs, trunk=trunk), arm("b", -pairs, trunk=trunk)),
            size=SIZE,
        )


def test_a_model_that_reads_the_activations_features_is_refused() -> None:
    with pytest.raises(ValueRangeError, match="must differ in at least one arm"):
        Testbed(name="bad", seed=0, arms=(arm("a", torch.eye(N_FEATURES)),), size=SIZE)


def test_a_null_that_finds_everything_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = arm("a", contrasts(list(range(N_FEATURES))))
    monkeypatch.setattr("modelassay.testbeds.testbed.DEGENERATE", 0.6)
    with pytest.raises(ValueRangeError, match=r"null of a truth must lie below 0\.6"):
        Testbed(name="bad", seed=0, arms=(one,), size=Size(width=400, k=400))


def test_a_constant_feature_is_refused() -> None:
    one = arm("a", torch.cat([contrasts(list(range(N_FEATURES))), torch.zeros(1, N_FEATURES)]))
    with pytest.raises(ValueRangeError, match="'sum 4' of arm 'a', which is constant"):
        Testbed(name="bad", seed=0, arms=(one,), size=SIZE)


def test_arms_need_names_of_their_own() -> None:
    one = arm("a", contrasts(list(range(N_FEATURES))))
    with pytest.raises(ValueRangeError, match=r"different names; got \['a', 'a'\]"):
        Testbed(name="bad", seed=0, arms=(one, one), size=SIZE)


def test_a_truth_checks_its_scalars() -> None:
    inputs = torch.ones(3, 2)
    with pytest.raises(ShapeError, match=r"must be \[3, 1\]"):
        Truth(names=("a",), scalars=lambda x: x).values(inputs)
    with pytest.raises(NonFiniteError, match="'b'"):
        Truth(names=("a", "b"), scalars=lambda x: x / torch.tensor([1.0, 0])).values(inputs)
    with pytest.raises(ValueRangeError, match="at least one feature"):
        Truth(names=(), scalars=lambda x: x)
    with pytest.raises(ShapeError, match="one row per feature, 1"):
        Truth(names=("a",), scalars=lambda x: x, covectors=torch.ones(2, 2))


def test_rounding_does_not_switch_a_feature_on() -> None:
    assert is_active(torch.tensor([[1.0], [1e-9], [0]])).tolist() == [[True], [False], [False]]


def test_unknown_names_suggest_near_misses() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'topk'"):
        method_named("topkk")
    kinds = {kind.name: kind for kind in KINDS}
    assert find(["SMALL"], kinds) == list(KINDS)
    assert find(["all"], kinds) == list(KINDS)
    with pytest.raises(UnknownNameError, match="Did you mean 'small'"):
        find(["smoll"], kinds)


def test_slow_testbeds_are_meant_only_by_their_own_name() -> None:
    quick, slow = KINDS[0], replace(KINDS[0], name="small.large", slow=True)
    kinds = {kind.name: kind for kind in (quick, slow)}
    assert find(["small"], kinds) == find(["all"], kinds) == [quick]
    assert find(["small.large"], kinds) == [slow]


def test_scores_without_covectors_have_no_graph(testbed: Testbed) -> None:
    one = testbed.arms[0]
    assert math.isnan(oracle_scores(testbed, one, one.model_truth).s_graph)
    assert linear(torch.eye(2)).weight.shape == (2, 2)
