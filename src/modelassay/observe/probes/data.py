"""`ProbeData`: labelled activations in groups, and splits that no group straddles.

Items of one group (a document, a noun, a prompt's variants) resemble each other, so that a probe
may recognise the group instead of the label. Groups therefore stay whole: in train and test, in
the folds of a cross-validation, in the blocks of an online code and in every bootstrap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError, TooFewTokensError, ValueRangeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeData:
    """Activations with labels.

    Raises:
        ShapeError: if the columns differ in length.
        NonFiniteError: if an activation is NaN or infinite.
        ValueRangeError: if a label has no class, or a group no name.
    """

    activations: Float[Tensor, "item width"]
    labels: Int[Tensor, " _"]
    """Numbers of classes; one per item, as in all columns (whose lengths are checked here)."""
    groups: Int[Tensor, " _"]
    """What must not be torn apart, as numbers of `group_names`."""
    group_names: tuple[str, ...]
    """Names that mean the same in every data set: by them a probe knows what it was trained on."""
    classes: tuple[str, ...] = ("no", "yes")
    types: Int[Tensor, " _"] | None = None
    """Key of the control task: the item's token, word or other kind that recurs."""
    contexts: Int[Tensor, "_ length"] | None = None
    """The tokens that the model had read, up to and with the item's; -1 is padding."""

    def __post_init__(self) -> None:
        columns = {"labels": self.labels, "groups": self.groups}
        columns |= {"types": self.types} if self.types is not None else {}
        columns |= {"contexts": self.contexts} if self.contexts is not None else {}
        for name, column in columns.items():
            if len(column) != len(self.activations):
                raise ShapeError(
                    f"{name} must have one entry for each of the {len(self.activations)} "
                    f"activations; got {len(column)}. Give one per item."
                )
        if not bool(self.activations.isfinite().all()):
            bad = int((~self.activations.isfinite().all(1)).nonzero()[0, 0])
            raise NonFiniteError(
                f"Activations must be finite; got NaN or Inf in item {bad}. Leave it out, or read "
                "the model in float32."
            )
        _check_numbers("labels", self.labels, "classes", self.classes)
        _check_numbers("groups", self.groups, "group_names", self.group_names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def n_classes(self) -> int:
        """Number of classes that a label may have."""
        return len(self.classes)

    @property
    def balance(self) -> Float[Tensor, " class"]:
        """Share of each class among the items."""
        counts = torch.bincount(self.labels, minlength=self.n_classes).double()
        return counts / max(1, len(self))

    @property
    def named_groups(self) -> frozenset[str]:
        """Names of the groups that have an item here."""
        return frozenset(self.group_names[number] for number in self.groups.unique().tolist())

    def take(self, index: Int[Tensor, " taken"]) -> "ProbeData":
        """Some of the items, in this order."""
        return replace(
            self,
            activations=self.activations[index],
            labels=self.labels[index],
            groups=self.groups[index],
            types=None if self.types is None else self.types[index],
            contexts=None if self.contexts is None else self.contexts[index],
        )

    def with_labels(self, labels: Int[Tensor, " item"]) -> "ProbeData":
        """The same items with other labels."""
        return replace(self, labels=labels)

    def with_activations(self, activations: Float[Tensor, "item other_width"]) -> "ProbeData":
        """The same items read elsewhere: at another site, in another model, after an edit."""
        return replace(self, activations=activations)

    def require_classes(self, *, binary: str = "") -> None:
        """Refuse data from which nothing can be learnt.

        Args:
            binary: name of a method that knows two classes only; empty for other methods.

        Raises:
            ValueRangeError: if fewer than two classes have items, or more than two where a
                method knows only two.
        """
        present = self.labels.unique().tolist()
        if len(present) < 2:
            held = ", ".join(repr(self.classes[number]) for number in present) or "none"
            raise ValueRangeError(
                f"Labels must hold at least two classes; got only {held} in {len(self)} items. "
                "Add items of another class."
            )
        if binary and self.n_classes != 2:
            raise ValueRangeError(
                f"{binary} must have two classes; got {self.n_classes}. Probe one class against "
                "the others, or use a logistic probe."
            )


def numbered(names: Sequence[str]) -> tuple[Int[Tensor, " item"], tuple[str, ...]]:
    """Names as numbers, and the distinct names in order of first appearance."""
    distinct = tuple(dict.fromkeys(names))
    number = {name: index for index, name in enumerate(distinct)}
    return torch.tensor([number[name] for name in names], dtype=torch.int64), distinct


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Train and test items that share no group."""

    train: ProbeData
    test: ProbeData

    def __post_init__(self) -> None:
        shared = self.train.named_groups & self.test.named_groups
        if shared:
            raise ValueRangeError(
                "Train and test must share no group; got "
                f"{', '.join(map(repr, sorted(shared)[:3]))} in both ({len(shared)} in all). "
                "Split by group with train_test."
            )


def train_test(data: ProbeData, generator: torch.Generator, *, test_share: float = 0.3) -> Split:
    """Divide by groups, so that each class has about its share of items on either side.

    Args:
        test_share: of the items, for testing.

    Raises:
        ValueRangeError: if the share is not between 0 and 1, or there is one class only.
        TooFewTokensError: if there are too few groups to put each class on both sides.
    """
    train, test = train_test_items(data, generator, test_share=test_share)
    return Split(train=data.take(train), test=data.take(test))


def train_test_items(
    data: ProbeData, generator: torch.Generator, *, test_share: float = 0.3
) -> tuple[Int[Tensor, " train"], Int[Tensor, " test"]]:
    """The items of `train_test`, to read the same ones elsewhere."""
    if not 0 < test_share < 1:
        raise ValueRangeError(
            f"test_share must be between 0 and 1, both excluded; got {test_share}. Use 0.3."
        )
    data.require_classes()
    side = _bins(data, (1 - test_share, test_share), generator)
    parts = [(side == number).nonzero()[:, 0] for number in (0, 1)]
    for part, name in zip(parts, ("train", "test"), strict=True):
        missing = set(data.labels.tolist()) - set(data.labels[part].tolist())
        if missing:
            raise TooFewTokensError(
                f"Each class must have groups on both sides of a split; got none of "
                f"{data.classes[min(missing)]!r} for {name} among {len(data.named_groups)} groups. "
                "Add groups, or make them smaller."
            )
    return parts[0], parts[1]


def group_folds(data: ProbeData, n_folds: int, generator: torch.Generator) -> Int[Tensor, " item"]:
    """Fold of each item for a cross-validation: whole groups, classes in proportion."""
    return _bins(data, (1 / n_folds,) * n_folds, generator)


def _bins(
    data: ProbeData, shares: tuple[float, ...], generator: torch.Generator
) -> Int[Tensor, " item"]:
    """Put every group, the largest first, where items of its classes are most wanting."""
    present, owner = data.groups.unique(return_inverse=True)
    counts = np.zeros((len(present), data.n_classes))
    np.add.at(counts, (owner.numpy(), data.labels.numpy()), 1)
    targets = np.outer(shares, counts.sum(0)).clip(min=1e-9)
    filled = np.zeros_like(targets)
    order = torch.randperm(len(present), generator=generator).numpy()
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    chosen: NDArray[np.int64] = np.zeros(len(present), dtype=np.int64)
    for group in order:
        wanting = ((1 - filled / targets) * counts[group]).sum(1)
        chosen[group] = wanting.argmax()
        filled[chosen[group]] += counts[group]
    return torch.from_numpy(chosen)[owner]


def _check_numbers(what: str, numbers: Tensor, of: str, names: tuple[str, ...]) -> None:
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(names):
        raise ValueRangeError(
            f"{what} must be from 0 to {len(names) - 1}, the numbers of {of}; got "
            f"{int(numbers.min())} to {int(numbers.max())}. Name every one."
        )
