"""Each sparsifier against its definition on a dense matrix."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)

pre_activations = st.builds(
    lambda seed, rows, width: torch.randn(rows, width, generator=generator(seed)),
    st.integers(0, 2**32),
    st.integers(0, 5),
    st.sampled_from([3, 32, 256]),
)


def dense(activation, pre):
    values, indices = activation.select(pre)
    return Codes(indices=indices, values=values, width=pre.shape[1]).dense()


@given(pre_activations, st.integers(1, 3))
def test_topk_keeps_the_largest_positive(pre, k):
    bound = pre.topk(k).values[:, -1:]
    assert torch.equal(dense(TopKActivation(k), pre), pre.relu() * (pre >= bound))


@given(pre_activations)
def test_relu_keeps_the_positive(pre):
    assert torch.equal(dense(ReLUActivation(), pre), pre.relu())


@given(pre_activations, st.floats(-1, 2, width=32))
def test_batch_topk_keeps_the_positive_above_one_threshold(pre, threshold):
    activation = BatchTopKActivation(k=2, threshold=threshold)
    assert torch.equal(dense(activation, pre), pre.relu() * (pre > threshold))


@given(pre_activations, st.integers(0, 2**32))
def test_jumprelu_keeps_the_positive_above_each_threshold(pre, seed):
    threshold = torch.randn(pre.shape[1], generator=generator(seed))
    assert torch.equal(dense(JumpReLUActivation(threshold), pre), pre.relu() * (pre > threshold))


def test_a_value_equal_to_the_threshold_is_not_active():
    pre = torch.tensor([[1.0, 2.0]])
    assert dense(BatchTopKActivation(1, 1.0), pre).tolist() == [[0, 2]]
    assert dense(JumpReLUActivation(torch.ones(2)), pre).tolist() == [[0, 2]]


def test_an_uncalibrated_threshold_is_refused_and_then_set():
    activation = BatchTopKActivation(k=1)
    with pytest.raises(ValueRangeError, match="must have a calibrated threshold to encode"):
        activation.select(torch.ones(1, 2))
    activation.calibrate(0.5)
    assert dense(activation, torch.tensor([[0.4, 0.6]])).tolist() == [[0, pytest.approx(0.6)]]


def test_thresholds_travel_with_the_state():
    activation = BatchTopKActivation(k=1)
    activation.load_state_dict(BatchTopKActivation(k=1, threshold=0.25).state_dict())
    assert float(activation.threshold) == 0.25
