"""Splits and folds: whole groups, classes in proportion, and refusals."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ShapeError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.probes.data import ProbeData, Split, group_folds, numbered, train_test
from tests.observe.probes.planted import planted


@given(seed=st.integers(0, 1000), n_groups=st.integers(12, 80))
def test_no_group_stands_on_both_sides(seed: int, n_groups: int):
    data, _ = planted(n=400, n_groups=n_groups, seed=seed)
    split = train_test(data, generator(seed))
    assert not split.train.named_groups & split.test.named_groups
    assert len(split.train) + len(split.test) == len(data)
    assert abs(len(split.test) / len(data) - 0.3) < 0.1


def test_classes_are_divided_in_proportion_although_groups_hold_one_class_each():
    data, _ = planted(n=600, n_groups=60)
    pure = data.with_labels((data.groups < 15).long())
    split = train_test(pure, generator(0))
    assert float(split.test.balance[1]) == pytest.approx(0.25, abs=0.06)


def test_folds_hold_whole_groups():
    data, _ = planted()
    folds = group_folds(data, 5, generator(0))
    owners = {(int(g), int(f)) for g, f in zip(data.groups, folds, strict=True)}
    assert len(owners) == 60
    assert torch.bincount(folds).tolist() == [240] * 5


def test_a_split_that_tears_a_group_apart_is_refused():
    data, _ = planted()
    half = torch.arange(600)
    with pytest.raises(ValueRangeError, match=r"must share no group; got 'document 0'"):
        Split(train=data.take(half), test=data.take(half + 600))


def test_a_class_in_one_group_cannot_be_split():
    data, _ = planted()
    rare = data.with_labels((data.groups == 0).long())
    with pytest.raises(TooFewTokensError, match=r"groups on both sides of a split; got none of"):
        train_test(rare, generator(0))


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_outside_0_and_1_is_refused(share: float):
    data, _ = planted()
    with pytest.raises(ValueRangeError, match="test_share must be between 0 and 1"):
        train_test(data, generator(0), test_share=share)


def test_columns_must_be_as_long_as_the_activations():
    data, _ = planted()
    with pytest.raises(ShapeError, match="labels must have one entry for each of the 1200"):
        data.with_labels(data.labels[:-1])


def test_labels_must_have_classes():
    data, _ = planted()
    with pytest.raises(ValueRangeError, match="labels must be from 0 to 1, the numbers of classes"):
        data.with_labels(data.labels + 1)


def test_binary_methods_refuse_more_classes():
    three = ProbeData(
        activations=torch.randn(3, 2), labels=torch.arange(3), groups=torch.arange(3),
        group_names=("a", "b", "c"), classes=("x", "y", "z"),
    )  # fmt: skip
    with pytest.raises(ValueRangeError, match="CCS must have two classes; got 3"):
        three.require_classes(binary="CCS")


def test_names_are_numbered_in_order_of_appearance():
    numbers, names = numbered(["b", "a", "b"])
    assert numbers.tolist() == [0, 1, 0]
    assert names == ("b", "a")
