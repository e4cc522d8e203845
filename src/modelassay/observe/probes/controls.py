"""What an accuracy must be compared with: controls that know less, or have nothing to find.

A control task gives each *type* (a token, a word) a random label, the same wherever the type
occurs. A probe can only get it right by remembering types. Its accuracy there, taken off the
accuracy on the real labels, is the selectivity: what the probe reads rather than remembers.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.observe.probes.data import ProbeData, Split

MOST_TOKENS = 500
"""Columns of the bag-of-tokens baseline: the commonest tokens of the training items (ours)."""


def control_labels(data: ProbeData, generator: torch.Generator) -> Int[Tensor, " item"]:
    """A random label for each type, drawn from the labels' own distribution.

    Label it before it is split: a type has one label in train and test.

    Raises:
        ValueRangeError: if there are no types, if every type occurs once (nothing could be
            remembered), or if they are too few to draw two classes.

    Reference: Hewitt & Liang 2019, section 2.
    """
    types = _types(data)
    distinct, owner = types.unique(return_inverse=True)
    if len(distinct) == len(types):
        raise ValueRangeError(
            f"A control task must have types that recur; got {len(types)} items of as many types. "
            "Take the token or the word as the type, not the item."
        )
    drawn = torch.multinomial(data.balance, len(distinct), replacement=True, generator=generator)
    labels = drawn[owner]
    if len(labels.unique()) < 2:
        raise ValueRangeError(
            f"A control task must have enough types for two labels; got {len(distinct)}, which all "
            "drew one label. Take a finer type, or another seed."
        )
    return labels


def require_recurring_types(split: Split) -> None:
    """Refuse a control task whose test items have types that training never showed.

    Raises:
        ValueRangeError: if no test item's type occurs in training: the control would be at chance
            for any probe, and the selectivity would say nothing.
    """
    seen = torch.isin(_types(split.test), _types(split.train))
    if not bool(seen.any()):
        raise ValueRangeError(
            "A control task must show some types in train and in test; got none in both. Take a "
            "type that is not the group, such as the token."
        )


def control_split(split: Split, generator: torch.Generator) -> Split:
    """Both sides with the labels of one control task.

    Raises:
        ValueRangeError: if the types cannot carry a control task.
    """
    require_recurring_types(split)
    n_train = len(split.train)
    both = replace(
        split.train,
        activations=torch.cat([split.train.activations[:, :1], split.test.activations[:, :1]]),
        labels=torch.cat([split.train.labels, split.test.labels]),
        groups=torch.cat([split.train.groups, split.test.groups]),
        types=torch.cat([_types(split.train), _types(split.test)]),
        contexts=None,
    )
    labels = control_labels(both, generator)
    return Split(
        train=split.train.with_labels(labels[:n_train]),
        test=split.test.with_labels(labels[n_train:]),
    )


def shuffled(data: ProbeData, generator: torch.Generator) -> ProbeData:
    """The labels in random order: what a probe finds now is chance and capacity."""
    order = torch.randperm(len(data), generator=generator)
    return data.with_labels(data.labels[order])


def majority(split: Split) -> Float[Tensor, "item class"]:
    """The training items' class shares as everybody's probabilities."""
    return split.train.balance.expand(len(split.test), -1)


def type_lookup(split: Split) -> Float[Tensor, "item class"]:
    """Class shares of each test item's type in training; of all items where the type is new.

    One pseudo-item with the overall shares keeps rare types from being certain.

    Raises:
        ValueRangeError: if the data have no types.
    """
    train, test = _types(split.train), _types(split.test)
    distinct, owner = torch.cat([train, test]).unique(return_inverse=True)
    counts = split.train.balance.expand(len(distinct), -1).clone()
    ones = torch.ones(len(train), dtype=torch.float64)
    counts.index_put_((owner[: len(train)], split.train.labels), ones, accumulate=True)
    shares = counts / counts.sum(1, keepdim=True)
    return shares[owner[len(train) :]]


def bags_of_tokens(split: Split, *, most: int = MOST_TOKENS) -> Split:
    """Counts of the tokens that the model had read, in place of its activations.

    Raises:
        ValueRangeError: if the data have no contexts.
    """
    train, test = _contexts(split.train), _contexts(split.test)
    present, counts = train[train >= 0].unique(return_counts=True)
    common = present[counts.argsort(descending=True, stable=True)[:most]].sort().values
    return Split(
        train=split.train.with_activations(_counts(train, common)),
        test=split.test.with_activations(_counts(test, common)),
    )


def _counts(
    contexts: Int[Tensor, "item length"], tokens: Int[Tensor, " column"]
) -> Float[Tensor, "item column"]:
    """How often each token occurs in each context."""
    place = torch.searchsorted(tokens, contexts).clamp(max=len(tokens) - 1)
    found = tokens[place] == contexts
    counts = torch.zeros(len(contexts), len(tokens))
    return counts.scatter_add_(1, place, found.float())


def _contexts(data: ProbeData) -> Int[Tensor, "item length"]:
    if data.contexts is None:
        raise ValueRangeError(
            "A bag of tokens must have contexts; got data without. Read them with "
            "read_activations, or give contexts=…."
        )
    return data.contexts


def _types(data: ProbeData) -> Int[Tensor, " item"]:
    if data.types is None:
        raise ValueRangeError(
            "A control task must have types; got data without. Give types=…, such as token ids."
        )
    return data.types
