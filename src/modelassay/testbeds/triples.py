"""T9: alpha triples. Two codes with two active latents decode to the same activation.

A random dictionary of 1024 directions in R^64 with planted ``f3 = (f2 - alpha f1) / n``: then
``f1 + f2 = (1 + alpha) f1 + n f3`` (`triples_codes`). Two readers of the same activations:

- *through f2* reads how much of f1 there is if the rest is f2: the covector r in the plane with
  ``r.f1 = 1`` and ``r.f2 = 0``, and ReLU. Of ``z1 f1 + z2 f2`` it reads z1.
- *through f3* reads the same if the rest is f3: of the same activation it reads ``z1 + alpha z2``.

As scalars the second members agree (``z3' = n z2``): only the amount of f1 depends on the code, and
so the truths consist of these amounts. The activations' features are the generating code's, z. In
the data each member's values are peaked, and pairs are planted as (1, 1, 0) up to 5 %; 2 to 8
latents are active. Interventional inputs have every f1 and every f2 on independently, f2 more often
and more strongly: in the data both have one value, and z1 is nearly a function of the other amount.

The planes of the triples are orthogonal to each other and to all other directions, so that a
covector reads its own triple alone; otherwise the interference of 1024 latents in R^64 would blur
both truths equally.

Known: of the rules that could choose, L0 with error cannot, L1 is right for ``alpha > 0`` and wrong
for ``-1 < alpha < 0``, description length is right for both where values are peaked
(`triples_choices`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.recipes import unit_rows
from modelassay.geometry.triples import find_triples
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.picture import Marks, Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.scores import cosine
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.triples_codes import Planted
from modelassay.testbeds.triples_inputs import (
    SlotDecoder,
    data_inputs,
    interventional_inputs,
    separate_planes,
)
from modelassay.testbeds.triples_known import known_numbers
from modelassay.testbeds.truth import Truth

_DATA, _INTERVENTIONAL = 20_000, 6_000  # inputs (ours)
_EQUAL = 1e-6  # two shares of a code that differ by less are the same


class Amounts(nn.Module):
    """``y = ReLU(R x)``: how much of f1 there is in every triple."""

    def __init__(self, covectors: Float[Tensor, "triple d"]) -> None:
        super().__init__()
        self.covectors = nn.Parameter(covectors)

    def forward(self, x: Tensor) -> Tensor:
        """From activations to outputs."""
        return (x @ self.covectors.T).relu()


def build(seed: int) -> Testbed:
    """The testbed: arms "through f2" and "through f3"."""
    draw = partial(derived, seed, "T9")
    planted = separate_planes(draw("dictionary"))
    trunk = SlotDecoder(planted.directions)
    data = data_inputs(planted, _DATA, draw("data"))
    interventional = interventional_inputs(planted, _INTERVENTIONAL, draw("interventional"))
    generated = Truth(
        names=_names("f1", planted),
        scalars=partial(_amounts_of_first, planted),
        covectors=planted.directions[planted.members[:, 0]],
    )
    arms: list[Arm] = []
    for name, other in (("through f2", 1), ("through f3", 2)):
        covectors = dual(
            planted.directions[planted.members[:, 0]], planted.directions[planted.members[:, other]]
        )
        arms.append(
            Arm(
                name=name,
                subject=arm_subject(f"T9 {name}", trunk, Amounts(covectors)),
                data=data,
                interventional=interventional,
                activations_truth=generated,
                model_truth=Truth(
                    names=_names(f"f1 {name}", planted),
                    scalars=partial(_read, trunk, covectors),
                    covectors=covectors,
                ),
            )
        )
    return Testbed(
        name="T9",
        seed=seed,
        arms=tuple(arms),
        size=Size(width=len(planted.directions), k=6, tokens=400_000, batch_tokens=512),
        own_scores=partial(own_scores, planted, seed),
        known=partial(known_numbers, seed),
        draw=partial(_draw, planted, seed),
    )


def dual(
    first: Float[Tensor, "triple d"], other: Float[Tensor, "triple d"]
) -> Float[Tensor, "triple d"]:
    """r in the plane of two unit vectors with ``r . first = 1`` and ``r . other = 0``."""
    between = (first * other).sum(1, keepdim=True)
    return (first - between * other) / (1 - between.square())


def _names(what: str, planted: Planted) -> tuple[str, ...]:
    return tuple(
        f"{what}, triple {t} (alpha {alpha:g})" for t, alpha in enumerate(planted.alphas.tolist())
    )


def _amounts_of_first(planted: Planted, inputs: Tensor) -> Tensor:
    """Values of the f1 slots: what the generating code says."""
    latents, values = inputs[..., 0].long(), inputs[..., 1]
    dense = values.new_zeros(len(inputs), len(planted.directions)).scatter_add_(1, latents, values)
    return dense[:, planted.members[:, 0]]


def _read(trunk: SlotDecoder, covectors: Tensor, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return (trunk(inputs) @ covectors.T).relu()


def own_scores(
    planted: Planted, seed: int, arm: Arm, decomposition: Decomposition
) -> Mapping[str, float]:
    """Whether the planted triples are in a decomposition, and which code it uses for pairs.

    "members" is the mean best |cosine| with the members; "near_triples" the share of latents with
    a residual that one in a hundred random directions has, less that hundredth; "first_code" the
    share of pairs (f1 + f2 alone) for which the latent nearest f2 outweighs that nearest f3 in
    units of the codes z and z', ties split; NaN where one latent is the nearest of both.
    """
    del arm
    directions = decomposition.directions
    similar = cosine(directions, planted.directions[planted.members.flatten()])
    nearest = similar.argmax(0).view(-1, 3)
    pairs = planted.directions[planted.members[:, :2]].sum(1)
    values = decomposition.encode(pairs).dense() * directions.norm(dim=1)
    second, third = (values.gather(1, nearest[:, [i]])[:, 0] for i in (1, 2))
    lead = second - third / planted.norms
    won = torch.where(lead.abs() < _EQUAL, 0.5, (lead > 0).float())
    won = won[nearest[:, 1] != nearest[:, 2]]
    return {
        "members": float(similar.amax(0).mean()),
        "near_triples": _near_triples(directions, seed),
        "first_code": float(won.mean()),
    }


def _near_triples(directions: Tensor, seed: int) -> float:
    if len(directions) < 3:
        return 0.0
    residuals = find_triples(directions).residuals
    return float((residuals < _chance(directions, seed).quantile(0.01)).float().mean()) - 0.01


def _chance(directions: Tensor, seed: int) -> Tensor:
    random = unit_rows(len(directions), directions.shape[1], derived(seed, "T9", "chance"))
    return find_triples(random).residuals


def _draw(
    planted: Planted, seed: int, decompositions: Mapping[str, Decomposition]
) -> Sequence[Picture]:
    found = [(name, decompositions[name]) for name in ("topk",) if name in decompositions]
    return [_worked_picture(planted), _residual_picture(planted, seed, found)]


def _worked_picture(planted: Planted) -> Picture:
    """The plane of the triple with the largest alpha, and the two ways to its pair."""
    t = int(planted.alphas.argmax())
    f1, f2, f3 = planted.directions[planted.members[t]]
    across = functional.normalize(f2 - (f1 @ f2) * f1, dim=0)
    plane = torch.stack([f1, across])
    members = torch.stack([f1, f2, f3]) @ plane.T
    pair = (f1 + f2) @ plane.T
    corner = (1 + planted.alphas[t]) * members[0]
    path = torch.stack([torch.zeros(2), corner, pair])
    direct = torch.stack([torch.zeros(2), members[0], pair])
    return Picture(
        title=f"A triple with alpha = {float(planted.alphas[t]):g}, in its plane",
        caption="f1 + f2 is also (1 + alpha) f1 + n f3: both codes have two active latents.",
        x_title="along f1",
        y_title="across",
        equal=True,
        marks=(
            Marks(kind="arrows", title="f1, f2, f3", role="data", x=members[:, 0], y=members[:, 1]),
            Marks(kind="line", title="z", role="activations", x=direct[:, 0], y=direct[:, 1]),
            Marks(kind="line", title="z'", role="model", x=path[:, 0], y=path[:, 1]),
            Marks(kind="points", title="the activation", role="found", x=pair[:1], y=pair[1:]),
        ),
    )


def _residual_picture(
    planted: Planted, seed: int, found: Sequence[tuple[str, Decomposition]]
) -> Picture:
    curves: list[tuple[str, Literal["data", "null", "found"], Tensor]] = [
        ("planted", "data", find_triples(planted.directions).residuals),
        ("random directions", "null", _chance(planted.directions, seed)),
        *((name, "found", find_triples(each.directions).residuals) for name, each in found),
    ]
    return Picture(
        title="Distance from the nearest plane of two others",
        caption="Triples lie at 0; random directions of the same number never come near.",
        x_title="residual",
        y_title="share of directions below",
        marks=tuple(
            Marks(
                kind="line",
                title=title,
                role=role,
                x=residuals.sort().values,
                y=torch.linspace(1 / len(residuals), 1, len(residuals)),
            )
            for title, role, residuals in curves
        ),
    )


KINDS: tuple[TestbedKind, ...] = (
    TestbedKind(
        name="T9",
        title="Alpha triples: two codes for one activation",
        claim=(
            "If one direction lies in the plane of two others, an activation has two codes of the "
            "same length, and reconstruction with sparsity cannot say which the model reads."
        ),
        build=build,
        references=("ayonrinde2024",),
    ),
)
