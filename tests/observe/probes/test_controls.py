"""Controls: what they find where there is nothing, and what they refuse."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.observe.probes.controls import (
    bags_of_tokens,
    control_labels,
    control_split,
    majority,
    shuffled,
    type_lookup,
)
from modelassay.observe.probes.data import train_test
from modelassay.observe.probes.description_length import PERCENTAGES, online_code
from modelassay.observe.probes.logistic import Logistic
from tests.observe.probes.planted import planted

FIXED = Logistic(l2=0.01)


def test_a_control_label_belongs_to_its_type():
    data, _ = planted()
    labels = control_labels(data, generator(0))
    pairs = {(int(t), int(y)) for t, y in zip(data.types, labels, strict=True)}
    assert len(pairs) == 40


def test_control_labels_have_the_distribution_of_the_labels():
    data, _ = planted(n_types=800, n=8000)
    rare = data.with_labels((torch.arange(8000) % 10 == 0).long())
    assert float(control_labels(rare, generator(0)).double().mean()) == pytest.approx(0.1, abs=0.04)


def test_both_sides_of_a_control_split_agree():
    data, _ = planted()
    split = control_split(train_test(data, generator(0)), generator(1))
    known = dict(zip(split.train.types.tolist(), split.train.labels.tolist(), strict=True))
    assert all(
        known[t] == y
        for t, y in zip(split.test.types.tolist(), split.test.labels.tolist(), strict=True)
        if t in known
    )


def test_a_probe_that_reads_the_concept_fails_the_control_task():
    data, _ = planted()
    split = control_split(train_test(data, generator(0)), generator(1))
    probe = FIXED.fit(split.train, generator(2))
    assert probe.score(split.test).auroc.value == pytest.approx(0.5, abs=0.1)


def test_keys_that_never_recur_are_refused():
    data, _ = planted()
    unique = replace(data, types=torch.arange(len(data)))
    with pytest.raises(ValueRangeError, match="must have types that recur; got 1200 items"):
        control_labels(unique, generator(0))


def test_types_that_are_the_groups_are_refused():
    data, _ = planted()
    split = train_test(replace(data, types=data.groups), generator(0))
    with pytest.raises(ValueRangeError, match="must show some types in train and in test"):
        control_split(split, generator(0))


def test_too_few_types_are_refused():
    data, _ = planted()
    alike = replace(data, types=torch.zeros_like(data.groups))
    with pytest.raises(ValueRangeError, match="enough types for two labels; got 1"):
        control_labels(alike, generator(0))


def test_shuffled_labels_keep_their_shares():
    data, _ = planted()
    mixed = shuffled(data, generator(0))
    assert torch.equal(mixed.balance, data.balance)
    assert not torch.equal(mixed.labels, data.labels)


def test_majority_is_the_training_share():
    data, _ = planted()
    split = train_test(data, generator(0))
    assert torch.equal(majority(split)[0], split.train.balance)


def test_type_lookup_knows_labels_that_the_type_decides():
    data, _ = planted()
    decided = data.with_labels(data.types % 2)
    split = train_test(decided, generator(0))
    assert bool((type_lookup(split).argmax(1) == split.test.labels).all())


def test_a_bag_of_tokens_counts():
    data, _ = planted()
    contexts = torch.tensor([[7, 7, 3, -1, -1, -1]]).expand(len(data), -1)
    bags = bags_of_tokens(train_test(replace(data, contexts=contexts), generator(0)))
    assert bags.test.activations[0].tolist() == [1.0, 2.0]  # tokens 3 and 7


def test_labels_of_a_planted_concept_compress_and_control_labels_do_not():
    data, _ = planted()
    real = online_code(FIXED, data)
    control = online_code(FIXED, data.with_labels(control_labels(data, generator(0))))
    assert real.uniform_bits == 1200.0
    assert real.compression > 3
    assert control.compression < 1.05


def test_a_code_is_the_sum_of_its_blocks_and_begins_uniformly():
    data, _ = planted()
    code = online_code(FIXED, data)
    assert code.bits == pytest.approx(sum(code.block_bits))
    assert code.block_bits[0] == code.block_ends[0]  # one bit an item
    assert code.block_ends[-1] == len(data)
    assert len(code.block_ends) <= len(PERCENTAGES)
    assert all(end % 20 == 0 for end in code.block_ends)  # groups of twenty stay whole


def test_a_class_that_comes_late_costs_finitely_many_bits():
    data, _ = planted(n_groups=1200)
    rare = data.with_labels((torch.arange(1200) % 400 == 0).long())
    code = online_code(FIXED, rare)
    assert 1 < code.compression < 100


def test_one_group_cannot_be_coded():
    data, _ = planted(n_groups=1)
    with pytest.raises(TooFewTokensError, match="groups enough for two blocks; got 1 groups"):
        online_code(FIXED, data)
