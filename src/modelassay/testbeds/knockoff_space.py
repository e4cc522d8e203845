"""A space whose geometry means something: a week, a year, a small taxonomy and analogies.

67 items with unit directions in R^32, each group in a subspace of its own, in a random basis:

- *week*: 7 days, *year*: 12 months, each on a circle;
- *taxonomy*: 4 parents with 8 children each, ``(parent + own) / sqrt(2)``, the own parts random
  unit vectors of R^8;
- *analogies*: 8 bases with 2 words each, ``(base +- offset) / sqrt(2)``: parallelograms. The bases
  are random unit vectors of R^8.

Every item is the extreme point of its group in its own direction, so one ReLU indicates it exactly
while its group has no other active item.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.randomness import derived

D = 32
_PARENTS, _CHILDREN, _BASES = 4, 8, 8
_ON = 0.5  # probability that a group is active on an input (ours)
_MORE = 2  # items drawn to go with a group's first; they may repeat it (ours)
SHARPNESS = 6.0
"""Of co-activation that mirrors geometry: u goes with v in proportion to exp(SHARPNESS u . v);
ours."""
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, kw_only=True, eq=False)
class Space:
    """The items, and what is read from their geometry."""

    names: tuple[str, ...]
    directions: Float[Tensor, "item d"]
    groups: Int[Tensor, " item"]
    """0 to 3, in the order above."""
    clusters: Int[Tensor, " item"]
    """Groups, with the taxonomy divided by parents and the analogies by bases."""
    readings: Float[Tensor, "reading d"]
    """Cosines and sines of both circles, the parents, and the offset."""
    reading_names: tuple[str, ...]

    @property
    def thresholds(self) -> Float[Tensor, " item"]:
        """The greatest product of each item with another of its group."""
        products = self.directions @ self.directions.T - 2 * torch.eye(len(self.names))
        return torch.where(self.groups[:, None] == self.groups, products, -2.0).amax(1)


def make_space(seed: int) -> Space:
    """The items in a random basis."""
    basis = torch.linalg.qr(torch.randn(D, D, generator=derived(seed, "T5", "basis")))[0]
    week, year, parents, own, bases, offset, _ = basis.split([2, 2, _PARENTS, 8, 8, 1, 7])
    generator = derived(seed, "T5", "items")
    unit = torch.nn.functional.normalize
    children = unit(torch.randn(_PARENTS * _CHILDREN, 8, generator=generator), dim=1) @ own
    words = unit(torch.randn(_BASES, 8, generator=generator), dim=1) @ bases
    parent = torch.arange(_PARENTS).repeat_interleave(_CHILDREN)
    base, sign = torch.arange(_BASES).repeat_interleave(2), torch.tensor([1.0, -1]).repeat(_BASES)
    directions = [
        circle(7) @ week,
        circle(12) @ year,
        (parents[parent] + children) / math.sqrt(2),
        (words[base] + sign[:, None] * offset) / math.sqrt(2),
    ]
    first = 2 + _PARENTS
    clusters = [torch.zeros(7), torch.ones(12), 2 + parent, first + base]
    return Space(
        names=(
            *DAYS,
            *(f"month {i + 1}" for i in range(12)),
            *(f"child {i} of {p}" for p in range(_PARENTS) for i in range(_CHILDREN)),
            *(f"word {b}{s}" for b in range(_BASES) for s in "+-"),
        ),
        directions=torch.cat(directions),
        groups=torch.cat([torch.full((len(each),), i) for i, each in enumerate(directions)]),
        clusters=torch.cat(clusters).long(),
        readings=torch.cat([week, year, parents, offset]),
        reading_names=(
            "cosine of the day",
            "sine of the day",
            "cosine of the month",
            "sine of the month",
            *(f"parent {i}" for i in range(_PARENTS)),
            "offset",
        ),
    )


def circle(count: int) -> Float[Tensor, "point 2"]:
    """Equally spaced points of the unit circle."""
    angle = 2 * math.pi / count * torch.arange(count)
    return torch.stack([angle.cos(), angle.sin()], 1)


def draw_items(
    space: Space, seed: int, purpose: str, count: int, *, mirrored: bool | None
) -> Float[Tensor, "input item"]:
    """Which items are active (1) on each input.

    Args:
        space: the items.
        seed: of the testbed.
        purpose: tells apart what is drawn with one seed.
        count: inputs.
        mirrored: whether the items that go with a group's first are likelier the nearer they are
            to it, or any of the group; None for one item per active group and no more.
    """
    generator = derived(seed, "T5", purpose)
    inputs: list[Tensor] = []
    for group in range(4):
        directions = space.directions[space.groups == group]
        n = len(directions)
        first = torch.randint(n, (count,), generator=generator)
        items = torch.nn.functional.one_hot(first, n).float()
        if mirrored is not None:
            odds = (SHARPNESS * mirrored * directions @ directions.T).exp()
            more = torch.multinomial(odds[first], _MORE, replacement=True, generator=generator)
            items.scatter_(1, more, 1.0)
        inputs.append(items * (torch.rand(count, 1, generator=generator) < _ON))
    return torch.cat(inputs, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Something to read from items of one group, and to generalise to items held out."""

    name: str
    group: int
    targets: Float[Tensor, "item label"]
    """Labels of every item; those of an input add up over its active items."""
    folds: tuple[Bool[Tensor, " item"], ...]
    """Which items are held out; each item of the group once."""


def tasks(space: Space) -> tuple[Task, ...]:
    """Day + 1, month + 1, hypernym and analogy."""
    found: list[Task] = []
    for group, name in enumerate(("day + 1", "month + 1", "hypernym", "analogy")):
        members = (space.groups == group).nonzero()[:, 0]
        n = len(members)
        if group < 2:
            labels, of_fold = circle(n).roll(-1, 0), torch.arange(n) % 4
        elif group == 2:
            labels = torch.eye(_PARENTS).repeat_interleave(_CHILDREN, 0)
            of_fold = torch.arange(n) % 4
        else:
            labels = torch.tensor([1.0, -1]).repeat(_BASES)[:, None]
            of_fold = torch.arange(n) // 2 % 4  # both words of a base
        targets = torch.zeros(len(space.names), labels.shape[1])
        targets[members] = labels
        folds = tuple(
            torch.isin(torch.arange(len(space.names)), members[of_fold == fold])
            for fold in range(4)
        )
        found.append(Task(name=name, group=group, targets=targets, folds=folds))
    return tuple(found)


def with_shuffled_labels(task: Task, generator: torch.Generator) -> Task:
    """The same task with the items' labels permuted among them."""
    members = torch.stack(task.folds).any(0).nonzero()[:, 0]
    targets = task.targets.clone()
    targets[members] = targets[members[torch.randperm(len(members), generator=generator)]]
    return Task(name=f"{task.name}, shuffled", group=task.group, targets=targets, folds=task.folds)
