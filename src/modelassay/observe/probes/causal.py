"""Causal tests of a probe's direction: does the model's behaviour follow it?

A probe says that a label can be decoded. Whether the model uses what is decoded, only a change
tells: push items along the direction to where the other class lies, or take the direction away,
and see whether the preferred continuation follows, more than under random changes of equal size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.probes.behaviour import Change, Choices, log_odds
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.erasure import fit_eraser
from modelassay.observe.probes.mass_mean import mean_difference
from modelassay.observe.probes.scores import Measured, group_weights, measure
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

N_NULLS = 20
"""Random changes beside each real one: the smallest p-value is then 1/21 (ours)."""
LEVEL = 0.05

Kind = Literal["push", "ablate", "erase"]
Use = Literal["yes", "partly", "no", "no behaviour"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalEffect:
    """What one kind of change does, in shares of the clean separation."""

    name: Kind
    value: Measured
    """Push: mean change of the log-odds towards the other class, over the separation; 1 moves the
    items as far as the classes lie apart. Ablate and erase: share of the separation that goes."""
    null: Float[Tensor, " draw"]
    """The same of random changes of equal size."""

    @property
    def p_value(self) -> float:
        """``(1 + number of nulls at least as large) / (1 + number of nulls)``."""
        above = int((self.null >= self.value.value).sum())
        return (1 + above) / (1 + len(self.null))

    @property
    def works(self) -> bool:
        """Whether it goes the claimed way, with certainty and more than random changes."""
        return self.value.low > 0 and self.p_value <= LEVEL


@dataclass(frozen=True, kw_only=True, slots=True)
class CausalTest:
    """What the model does with a direction."""

    site: str
    separation: Measured
    """Mean log-odds of class 1's continuation in class 1 less that in class 0, in nats."""
    effects: tuple[CausalEffect, ...]
    n_items: int
    n_groups: int

    @property
    def used(self) -> Use:
        """Yes if both pushing and ablating work, partly if one does.

        "No behaviour" where the model does not tell the classes apart in the first place: then
        there is nothing that a direction could be used for.
        """
        if not self.separation.low > 0:
            return "no behaviour"
        works = [effect.works for effect in self.effects if effect.name != "erase"]
        return "yes" if all(works) else "partly" if any(works) else "no"


def causal_test(
    subject: Subject,
    site: Site | str,
    direction: Float[Tensor, " width"],
    train: ProbeData,
    test: ProbeData,
    choices: Choices,
    *,
    everywhere: bool = False,
    n_nulls: int = N_NULLS,
    seed: int = 0,
    step: Callable[[int], None] = lambda _done: None,
) -> CausalTest:
    """Push, ablate and erase, on test items.

    *Push* adds to items of class 0, and takes from those of class 1, the direction times the
    difference of the class means along it; its nulls are random directions with steps of equal
    length. *Ablate* sets the component along the direction to the middle between the classes; its
    nulls ablate random directions. *Erase* applies LEACE of the training items; its nulls are
    LEACE of shuffled labels.

    Args:
        direction: of the read activations, towards class 1.
        train: says where the classes lie.
        test: the items of `choices`, in their order.
        choices: continuation 0 goes with class 0, continuation 1 with class 1.
        everywhere: change all tokens of the prompts, as suits probes of pooled activations.
        step: told after each batch how many items are done.

    Raises:
        ShapeError: if the test items are not those of the choices.
        ValueRangeError: if there are not two classes on either side, or the direction is zero.

    Reference: Marks & Tegmark 2023, section 5.2; Belrose et al. 2023.
    """
    for side in (train, test):
        side.require_classes(binary="A causal test")
    if len(test) != len(choices):
        raise ShapeError(
            f"Choices must be those of the {len(test)} test items; got {len(choices)}. Take the "
            "same items of both."
        )
    if not float(direction.norm()) > 0:
        raise ValueRangeError("A direction must not be zero; got zero. Take a fitted probe's.")
    families = {
        "push": _pushes(direction, train, test.labels, n_nulls, seed),
        "ablate": _ablations(direction, train, n_nulls, seed),
        "erase": _erasures(train, n_nulls, seed),
    }
    changes: list[Change | None] = [None]
    for family in families.values():
        changes += family
    scores = log_odds(subject, choices, site, changes, everywhere=everywhere, step=step)
    return _judged(str(site), scores, test, n_nulls, seed)


def _pushes(
    direction: Tensor, train: ProbeData, labels: Int[Tensor, " item"], n_nulls: int, seed: int
) -> list[Change]:
    unit = direction.double() / direction.double().norm()
    gap = unit @ mean_difference(train.activations, train.labels)
    towards = 1.0 - 2.0 * labels.double()  # class 0 goes up, class 1 down
    directions = [unit, *_random_units(len(unit), n_nulls, seed, "pushes")]

    def push(step: Tensor) -> Change:
        return lambda values, items: values.double() + towards[items][:, None] * step

    return [push(gap * each) for each in directions]


def _ablations(direction: Tensor, train: ProbeData, n_nulls: int, seed: int) -> list[Change]:
    values, labels = train.activations.double(), train.labels
    middle = (values[labels == 0].mean(0) + values[labels == 1].mean(0)) / 2
    unit = direction.double() / direction.double().norm()
    directions = [unit, *_random_units(len(unit), n_nulls, seed, "ablations")]

    def ablate(along: Tensor) -> Change:
        def change(values: Tensor, _items: Tensor) -> Tensor:
            values = values.double()
            return values - ((values - middle) @ along)[:, None] * along

        return change

    return [ablate(each) for each in directions]


def _erasures(train: ProbeData, n_nulls: int, seed: int) -> list[Change]:
    generator = derived(seed, "erasures")
    orders = [torch.arange(len(train))]
    orders += [torch.randperm(len(train), generator=generator) for _ in range(n_nulls)]

    def erase(order: Tensor) -> Change:
        eraser = fit_eraser(train.activations, train.labels[order])
        return lambda values, _items: eraser(values.double())

    return [erase(order) for order in orders]


def _random_units(width: int, count: int, seed: int, purpose: str) -> Float[Tensor, "count width"]:
    drawn = torch.randn(
        count, width, generator=derived(seed, "random", purpose), dtype=torch.float64
    )
    return torch.nn.functional.normalize(drawn, dim=1)


def _judged(
    site: str, scores: Float[Tensor, "change item"], test: ProbeData, n_nulls: int, seed: int
) -> CausalTest:
    """Effects with intervals by group, and their nulls."""
    clean, changed = scores[0], scores[1:].view(3, 1 + n_nulls, -1)
    weights = group_weights(test.groups, derived(seed, "causal test"))
    one, zero = (test.labels == 1).double(), (test.labels == 0).double()
    towards = zero - one

    def separation(values: Tensor, w: Tensor) -> Tensor:
        return (w @ (values * one)) / (w @ one) - (w @ (values * zero)) / (w @ zero)

    def pushed(values: Tensor, w: Tensor) -> Tensor:
        return (w @ ((values - clean) * towards)) / w.sum(1) / separation(clean, w)

    def lost(values: Tensor, w: Tensor) -> Tensor:
        return 1 - separation(values, w) / separation(clean, w)

    families: tuple[tuple[Kind, Callable[[Tensor, Tensor], Tensor], Tensor], ...] = (
        ("push", pushed, changed[0]),
        ("ablate", lost, changed[1]),
        ("erase", lost, changed[2]),
    )
    effects: list[CausalEffect] = []
    for name, statistic, family in families:
        value = measure(lambda w, s=statistic, f=family: s(f[0], w), weights)
        null = torch.cat([statistic(each, weights[:1]) for each in family[1:]])
        effects.append(CausalEffect(name=name, value=value, null=null))
    return CausalTest(
        site=site,
        separation=measure(lambda w: separation(clean, w), weights),
        effects=tuple(effects),
        n_items=len(test),
        n_groups=len(test.named_groups),
    )
