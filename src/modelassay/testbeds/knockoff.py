"""T5: knock-offs of an activation space, and whether its geometry is used.

Activations are sums of the active items' directions in the space of `knockoff_space`. Two readers:
*geometry* reads the cosines and sines of both circles, the parents and the analogies' offset;
*list* reads each item on its own, ``ReLU(d_i . x - b_i) / (1 - b_i)`` with b_i the greatest product
with another item of its group: no relation between items matters to it. The activations' truth is
the items; on the interventional inputs, where a group has at most one active item, those are what
*list* reads. On the data a group has up to three. In the variant *mirrored* items are active
together the likelier the nearer they are; in *exchangeable*, all pairs of a group alike.

How much usable geometry is in a level of knock-off (see `geometry.knockoffs`) is what readers of a
fixed budget make of it: they are fitted to labels of some items and predict those of the others,
four folds, pooled R^2. Over the four tasks, day + 1, month + 1, hypernym and analogy::

    G_k = mean over the tasks of (perf(K_k) - perf(K0)) / (perf(real) - perf(K0))

K0 gives 0 by definition and K1 gives 1 (a rotation, and readers fitted anew). G_2, co-activation
alone, is high if co-activation mirrors the geometry and low if not; "superposition suffices" iff
1 - G_2 < 0.05. So it is for the true items. Of a fitted or random dictionary G_2 is high in both
variants: latents with similar directions read the same inputs, so that their codes correlate as
the geometry has it. Only codes that are known apart from the directions can tell.

None of this sees the readers of the arms: usable is not used. The share of an arm's output that
survives, `kept K2`, does: ``1 - FVU`` of it on K2 aligned by Procrustes.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.geometry.knockoff_readers import performance
from modelassay.geometry.knockoffs import KNOCKOFFS, Original, knockoff
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.knockoff_gaps import gaps, original_of, performances
from modelassay.testbeds.knockoff_space import (
    Space,
    draw_items,
    make_space,
    tasks,
    with_shuffled_labels,
)
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.picture import Drawing, Grid, Marks, Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

_N_DATA, _N_INTERVENTIONAL = 20_000, 4_000
LABELS = (50, 500, 5000)
"""Labelled inputs that a reader is fitted to."""
SIZE = Size(width=67, k=5, tokens=600_000)


class _Trunk(nn.Module):
    directions: Tensor

    def __init__(self, directions: Float[Tensor, "item d"]) -> None:
        super().__init__()
        self.register_buffer("directions", directions)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.directions


class _Readings(nn.Module):
    """``ReLU`` or not of an affine map: rows @ x - thresholds, scaled."""

    rows: Tensor
    thresholds: Tensor | None

    def __init__(
        self, rows: Float[Tensor, "reading d"], thresholds: Float[Tensor, " reading"] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("thresholds", thresholds)

    def forward(self, x: Tensor) -> Tensor:
        read = x @ self.rows.T
        if self.thresholds is None:
            return read
        return (read - self.thresholds).relu() / (1 - self.thresholds)


def build(seed: int, *, mirrored: bool) -> Testbed:
    """The testbed: arms *geometry* and *list*."""
    space = make_space(seed)
    trunk = _Trunk(space.directions)
    data = draw_items(space, seed, "data", _N_DATA, mirrored=mirrored)
    interventional = draw_items(space, seed, "interventional", _N_INTERVENTIONAL, mirrored=None)
    items = Truth(names=space.names, scalars=lambda inputs: inputs, covectors=space.directions)
    on_list = _Readings(space.directions, space.thresholds)
    readers = {
        "geometry": (
            _Readings(space.readings),
            Truth(
                names=space.reading_names,
                scalars=lambda inputs: inputs @ (space.directions @ space.readings.T),
                covectors=space.readings,
            ),
        ),
        "list": (
            on_list,
            Truth(
                names=space.names,
                scalars=lambda inputs: on_list(trunk(inputs)),
                covectors=space.directions,
            ),
        ),
    }
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(f"T5 {name}", trunk, reader),
            data=data,
            interventional=interventional,
            activations_truth=items,
            model_truth=truth,
        )
        for name, (reader, truth) in readers.items()
    )
    return Testbed(
        name="T5.mirrored" if mirrored else "T5.exchangeable",
        seed=seed,
        arms=arms,
        size=SIZE,
        own_scores=lambda arm, found: own_scores(arm, found, space, seed),
        known=lambda: known(arms[0], space, seed, mirrored=mirrored),
        draw=lambda found: draw(arms[0], space, seed, found),
    )


def own_scores(arm: Arm, found: Decomposition, space: Space, seed: int) -> Mapping[str, float]:
    """G of the decomposition's own dictionary and codes, and what of the output K2 keeps."""
    codes = found.encode(arm.activations)
    alive = (codes.firing_counts() > 0) & (found.directions.norm(dim=1) > 0)
    values = codes.dense()[:, alive]
    original = Original.of(found.directions[alive], Codes.from_dense(values))

    def encode(inputs: Tensor) -> Tensor:
        return found.encode(inputs @ space.directions).dense()[:, alive]

    levels = gaps(original, arm.data, encode, tasks(space), seed)
    return {**levels, "kept K2": kept(arm, original, values, seed)}


def kept(arm: Arm, original: Original, values: Float[Tensor, "input latent"], seed: int) -> float:
    """``1 - FVU`` of the arm's output on K2, turned onto the real space; not below 0."""
    reader = arm.subject.module.get_submodule("reader")
    real = values @ original.directions
    other = values @ knockoff("K2", original, derived(seed, "T5", "K2", 0))
    real_mean, other_mean = real.mean(0), other.mean(0)
    left, _, right = torch.linalg.svd((other - other_mean).T @ (real - real_mean))
    aligned = (other - other_mean) @ (left @ right) + real_mean
    return performance(reader(aligned), reader(real))


def known(arm: Arm, space: Space, seed: int, *, mirrored: bool) -> Sequence[KnownNumber]:
    """G of K0 and K1, shuffled labels, and the direction in which G_2 must lie."""
    original, chosen = original_of(space, arm.data), tasks(space)
    found = gaps(original, arm.data, lambda inputs: inputs, chosen, seed)
    shuffled = [
        performances(
            with_shuffled_labels(task, derived(seed, "T5", "shuffled", task.name)),
            arm.data,
            lambda inputs: inputs,
            [space.directions],
            generator=derived(seed, "T5", "reader"),
        )[0]
        for task in chosen
    ]
    number = partial(KnownNumber, source="by construction")
    return [
        number(name="G of K0", expected=0.0, tolerance=1e-6, measured=found["G K0"]),
        number(name="G of K1", expected=1.0, tolerance=0.01, measured=found["G K1"]),
        number(
            name="R^2 with shuffled labels",
            expected=0.0,
            tolerance=0.1,
            measured=sum(shuffled) / len(shuffled),
        ),
        number(
            name=f"G of K2, co-activation {'mirrors' if mirrored else 'ignores'} geometry",
            expected=1.0 if mirrored else 0.0,
            tolerance=0.1,
            measured=found["G K2"],
        ),
    ]


def draw(
    arm: Arm, space: Space, seed: int, found: Mapping[str, Decomposition]
) -> Sequence[Drawing]:
    """The week, real and at each level, as its two principal directions; and G by labels."""
    original = original_of(space, arm.data)
    rows = {
        f"{labels} labels": gaps(
            original, arm.data, lambda inputs: inputs, tasks(space), seed, labels=labels
        )
        for labels in LABELS
    } | {name: own_scores(arm, each, space, seed) for name, each in found.items()}
    columns = [f"G {level}" for level in KNOCKOFFS]
    return [
        *(_week(level, original, space, seed) for level in ("K0", "K2", "K4")),
        Grid(
            title="Usable geometry that each level keeps",
            caption="G with the true items, for readers fitted to different numbers of labels, "
            "and with the dictionaries that methods found.",
            values=torch.tensor([[row[column] for column in columns] for row in rows.values()]),
            row_names=tuple(rows),
            column_names=tuple(KNOCKOFFS),
        ),
    ]


def _week(level: str, original: Original, space: Space, seed: int) -> Picture:
    days = knockoff(level, original, derived(seed, "T5", level, 0))[space.groups == 0]
    days = days - days.mean(0)
    points = days @ torch.linalg.svd(days, full_matrices=False).Vh[:2].T
    around = torch.cat([points, points[:1]])
    return Picture(
        title=f"The week in {level}",
        caption="The seven days, joined in their order, in the plane of most of their variance.",
        x_title="first direction",
        y_title="second direction",
        marks=(
            Marks(kind="line", title="order", role="null", x=around[:, 0], y=around[:, 1]),
            Marks(kind="points", title="days", role="data", x=points[:, 0], y=points[:, 1]),
        ),
        equal=True,
    )


KINDS: tuple[TestbedKind, ...] = tuple(
    TestbedKind(
        name=f"T5.{name}",
        title=f"Knock-off spaces, co-activation {word} geometry",
        claim="The geometry of activations can be usable without being used, and more than "
        "co-activation explains; knock-offs that keep a part of it tell how much.",
        build=partial(build, mirrored=name == "mirrored"),
        references=("giglemiani2024",),
    )
    for name, word in (("mirrored", "mirrors"), ("exchangeable", "ignores"))
)
