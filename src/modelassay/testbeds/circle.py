"""T6: days of the week on a circle, which one reader uses and another does not.

Activations in R^64, rotated so that no basis is privileged::

    x = P c_s + 0.6 N n_s + 1.5 h_k + sum_j y_j o_j
    c_s = (cos a_s, sin a_s),  n_s = (cos 2 a_s, sin 2 a_s, cos 3 a_s, sin 3 a_s) / sqrt(2)

for the day s with ``a_s = 2 pi s / 7``, a count of days k to add, and forty sparse features y;
P, N, h and o are orthonormal. The name n_s tells the days apart and holds nothing of the circle.
On the data each o_j is more frequent on one day of the week; on the interventional inputs all is
independent.

Both readers give seven logits. *used*: modular addition by turning the circle,
``logit_a = sum_k (h_k . x) <P^T x turned by 2 pi k / 7, c_a>``, which answers (s + k) mod 7; of
the day it reads the cosine and the sine. *unused*: a table of names,
``logit_a = ReLU(n_a . N^T x / 0.6 - b) / (1 - b)`` with b the greatest product of two names, which
is 1 for the day itself and 0 for the others; it reads seven indicators. Sparse coding finds these
in the activations, in both arms. Counts and other features are no part of the truths, which are
about the day.

What geometry says is the same in both arms, bit by bit: Engels' indices call the plane a circle.
Turning the found plane by 2 pi j / 7 tells them apart::

    R = (P(the answer moves by j) - 1/7) / (6/7)        over j = 0, ..., 6

1 where every answer follows, 0 where none does (it is right at j = 0 alone). R is not the affinity
of PAD: it is a property of an arm's reader and so much the same for every method that finds the
plane; PAD asks what the latents are, and uses the corrected match. A circle that training makes
from co-occurrence alone, where nothing is added, is in `cooccurrence`, with the limit of R.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.geometry.circles import Plane, irreducibility, plane_of_classes
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.circle_model import (
    CIRCLE,
    DAYS,
    N_DAYS,
    NAME,
    NAMES,
    NamingReader,
    Trunk,
    TurningReader,
)
from modelassay.testbeds.circle_shapes import known_indices
from modelassay.testbeds.cooccurrence import (
    TiedAutoencoder,
    circle_from_co_occurrence,
    draw_circle,
    trained_on_co_occurrence,
)
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.picture import Drawing, Grid, Marks, Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

_D = 64
_N_OTHERS = 40
_P_OTHERS, _P_ON_ITS_DAY = 0.15, 0.25
_COUNT = 1.5  # length of a count's direction (ours): other things vary as much as the circle does
_N_DATA, _N_INTERVENTIONAL = 20_000, 4_000
_N_TURNED = 2_000  # inputs whose answers are followed (ours)
SIZE = Size(width=64, k=8, tokens=600_000)


def _inputs(seed: int, purpose: str, count: int, *, independent: bool) -> Tensor:
    generator = derived(seed, "T6", purpose)
    day, added = torch.randint(N_DAYS, (2, count), generator=generator)
    others = 0.5 + torch.rand(count, _N_OTHERS, generator=generator)
    its_day = day[:, None] == torch.arange(_N_OTHERS) % N_DAYS
    chance = torch.where(its_day & (not independent), _P_ON_ITS_DAY, _P_OTHERS)
    on = torch.rand(count, _N_OTHERS, generator=generator) < chance
    hot = [nn.functional.one_hot(each, N_DAYS).float() for each in (day, added)]
    return torch.cat([*hot, others * on], 1)


def _day(inputs: Tensor) -> Tensor:
    return inputs[:, :N_DAYS]


def build(seed: int) -> Testbed:
    """The testbed: two arms, *used* and *unused*."""
    rotation = torch.linalg.qr(torch.randn(_D, _D, generator=derived(seed, "T6", "rotation")))[0]
    sizes = [2, NAMES.shape[1], N_DAYS, _N_OTHERS]
    plane, basis, counts, others = rotation[: sum(sizes)].split(sizes)
    names = NAMES @ basis
    days = CIRCLE @ plane + NAME * names
    trunk = Trunk(torch.cat([days, _COUNT * counts, others]))
    readers = {"used": TurningReader(plane, counts / _COUNT), "unused": NamingReader(names)}
    truths = {
        "used": Truth(
            names=("cosine", "sine"),
            scalars=lambda inputs: _day(inputs) @ CIRCLE,
            covectors=plane,
        ),
        "unused": Truth(names=DAYS, scalars=_day, covectors=names / NAME),
    }
    indicators = Truth(names=DAYS, scalars=_day, covectors=days)
    data = _inputs(seed, "data", _N_DATA, independent=False)
    interventional = _inputs(seed, "interventional", _N_INTERVENTIONAL, independent=True)
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(f"T6 {name}", trunk, reader),
            data=data,
            interventional=interventional,
            activations_truth=indicators,
            model_truth=truths[name],
        )
        for name, reader in readers.items()
    )
    trained = cache(lambda: trained_on_co_occurrence(seed))
    return Testbed(
        name="T6",
        seed=seed,
        arms=arms,
        size=SIZE,
        own_scores=lambda arm, found: own_scores(arm, found, plane),
        known=lambda: known(seed, arms, plane, trained),
        draw=lambda found: draw(arms, found, trained),
    )


def found_plane(arm: Arm, decomposition: Decomposition) -> Plane:
    """The plane of the day in a decomposition: of the days' means in its reconstructions.

    The mean of a reconstruction weights each latent's direction by how it varies with the day, so
    latents of other things drop out without a threshold.
    """
    return plane_of_classes(decomposition(arm.activations), _day(arm.data).argmax(1), N_DAYS)


def answers_that_follow(arm: Arm, plane: Plane) -> Float[Tensor, "turn shift"]:
    """Share of inputs whose answer moves by `shift` when the plane is turned by 2 pi turn / 7."""
    inputs = arm.data[:_N_TURNED]
    before = arm.output(inputs=inputs).argmax(1)
    shares: list[Tensor] = []
    for turn in range(N_DAYS):
        angle = 2 * math.pi * turn / N_DAYS
        output = arm.subject.run(
            inputs, edit={arm.site: lambda x, angle=angle: plane.turned(x, angle)}
        ).logits
        assert output is not None
        moved = (output.argmax(1) - before) % N_DAYS
        shares.append(torch.bincount(moved, minlength=N_DAYS) / len(inputs))
    return torch.stack(shares)


def response(arm: Arm, plane: Plane) -> float:
    """R: 1 if every answer moves with the plane, 0 if none does."""
    followed = float(answers_that_follow(arm, plane).diagonal().mean())
    return (followed - 1 / N_DAYS) / (1 - 1 / N_DAYS)


def own_scores(
    arm: Arm, decomposition: Decomposition, plane: Float[Tensor, "2 d"]
) -> Mapping[str, float]:
    """R, Engels' two indices in the found plane, and how much of the true plane it is."""
    found = found_plane(arm, decomposition)
    indices = irreducibility(found.points(arm.activations[:_N_TURNED]))
    return {
        "R": response(arm, found),
        "separability": indices.separability,
        "mixture": indices.mixture,
        "plane overlap": float((found.axes @ plane.T).square().sum()) / 2,
    }


def known(
    seed: int,
    arms: Sequence[Arm],
    plane: Float[Tensor, "2 d"],
    trained: Callable[[], TiedAutoencoder],
) -> Sequence[KnownNumber]:
    """R of both arms in the true plane, the calibration of Engels' indices, a trained circle."""
    used, unused = arms
    true = plane_of_classes(CIRCLE @ plane, torch.arange(N_DAYS), N_DAYS)
    followed = [
        KnownNumber(
            name=f"R in the true plane, {arm.name}",
            expected=expected,
            tolerance=0.02,
            measured=response(arm, true),
            source="by construction",
        )
        for arm, expected in ((used, 1.0), (unused, 0.0))
    ]
    return [*followed, *known_indices(seed), *circle_from_co_occurrence(trained())]


def draw(
    arms: Sequence[Arm],
    found: Mapping[str, Decomposition],
    trained: Callable[[], TiedAutoencoder],
) -> Sequence[Drawing]:
    """The circle with each method's latents, and where the answers go when it is turned."""
    first, pictures = arms[0], list[Drawing]()
    for name, decomposition in found.items():
        plane = found_plane(first, decomposition)
        pictures.append(_circle_picture(name, plane, first, decomposition))
        pictures += [_turn_grid(name, plane, arm) for arm in arms]
    return [*pictures, draw_circle(trained())]


def _circle_picture(name: str, plane: Plane, arm: Arm, decomposition: Decomposition) -> Picture:
    points = plane.points(arm.activations[:500])
    arrows = decomposition.directions @ plane.axes.T
    return Picture(
        title=f"The week in the plane that {name} finds",
        caption="Activations in the plane of the days' means, and the latents' directions in it. "
        "The picture is the same whether the model uses the circle or not.",
        x_title="first direction of the days' means",
        y_title="second direction",
        marks=(
            Marks(
                kind="points",
                title="activations",
                role="activations",
                x=points[:, 0],
                y=points[:, 1],
            ),
            Marks(kind="arrows", title="latents", role="found", x=arrows[:, 0], y=arrows[:, 1]),
        ),
        equal=True,
    )


def _turn_grid(name: str, plane: Plane, arm: Arm) -> Grid:
    return Grid(
        title=f"Answers when the plane of {name} is turned, circle {arm.name}",
        caption="Share of the answers that move by so many days (columns) when the plane is turned "
        "by so many sevenths (rows): on the diagonal if the circle is used, in the first column "
        "if not.",
        values=answers_that_follow(arm, plane),
        row_names=tuple(f"{turn}/7" for turn in range(N_DAYS)),
        column_names=tuple(f"+{shift}" for shift in range(N_DAYS)),
    )


KINDS: tuple[TestbedKind, ...] = (
    TestbedKind(
        name="T6",
        title="A circle of days, used or not",
        claim="A circle in the activations shows that the data has an order, not that the model "
        "uses it: two models with the same activations answer differently when it is turned.",
        build=build,
        references=("engels2024", "prieto2026"),
    ),
)
