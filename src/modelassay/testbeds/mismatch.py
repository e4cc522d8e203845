"""T2: a dictionary of 500, where the model has one of 100. Data density sets the resolution.

Activations are on a closed curve of unit vectors in R^10, ``x = gamma(t)``. The next layer's
neurons look at it from 100 knots::

    a_k = ReLU(v_k . x - b_k) / (1 - b_k),   v_k = gamma(t_k),   y = sum_k a_k c_k,   c_k in R^16

and b_k is the cosine between v_k and the nearer of its neighbours, so a_k is on only between them,
and 1 at its knot. The arms differ in the knots:

- *crucial_left*: 50 of them in the tenth of t from 0.15;
- *uniform*: even;
- *crucial_right*: 50 in the tenth from 0.65.

The features of the model are the a_k. Those of the activations are 500 tiles of t that hold equal
shares of the data, whose density ``1 + 0.8 cos 4 pi (t - 0.45)`` is least at both crucial segments:
what the model looks at closely is rare, so no dictionary of the data comes near to it by chance.
On the data both are functions of t. Interventional inputs have t uniform, which undoes the data's
density, and independent noise in all directions, a third of the least margin ``1 - b_k``: then a
neuron's value is no function of t, and a latent that reads v_k differs from one that knows t.

Prediction: activation-only sparse coding follows the data (S_res near 0, PAD~ = 0); a local
interaction basis finds the rank, 10.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.faithfulness import faithfulness
from modelassay.testbeds.knots import (
    SEGMENT,
    Neurons,
    crucial_knots,
    data_density,
    data_quantiles,
    even_knots,
    moment_curve,
    neurons_at,
)
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.picture import Marks, Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.resolution import centres, resolution_score
from modelassay.testbeds.scores import cosine, match
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth, one_hot_scalars

KNOTS, TILES = 100, 500
CRUCIAL = {"crucial_left": 0.15, "crucial_right": 0.65}
"""Arm -> where its crucial segment begins."""
_D = 10
_OUTPUTS = 16
_DATA, _INTERVENTIONAL = 20_000, 8_000
_NOISE = 1 / 3  # of the least margin of a neuron (ours)
_SIZE = Size(width=TILES, k=2, tokens=400_000, batch_tokens=512)
_GRID = 4_000  # points of t at which latents are looked for


class MomentCurve(nn.Module):
    """The activations: ``Q (gamma(t) + noise)`` for inputs (t, noise)."""

    def __init__(self, rotation: Float[Tensor, "d d"]) -> None:
        super().__init__()
        self.register_buffer("rotation", rotation)

    def forward(self, inputs: Float[Tensor, "input 11"]) -> Float[Tensor, "input 10"]:
        """The rotated point of the curve, off it by the noise."""
        rotation = self.get_buffer("rotation")
        return (moment_curve(inputs[:, 0]) + inputs[:, 1:]) @ rotation.T


def build(seed: int) -> Testbed:
    """The testbed: arms "crucial_left", "uniform" and "crucial_right"."""
    draw = partial(derived, seed, "T2")
    rotation = torch.linalg.qr(torch.randn(_D, _D, generator=draw("rotation")))[0]
    trunk = MomentCurve(rotation)
    neurons = {name: neurons_at(knots, rotation) for name, knots in _knots().items()}
    margin = min(float((1 - each.biases).min()) for each in neurons.values())
    data = _on_curve(data_quantiles(torch.rand(_DATA, generator=draw("data"))))
    # Stratified, so that no tile stays empty.
    jitter = torch.rand(_INTERVENTIONAL, generator=draw("t"))
    interventional = _on_curve((torch.arange(_INTERVENTIONAL) + jitter) / _INTERVENTIONAL)
    noise = torch.randn(_INTERVENTIONAL, _D, generator=draw("noise"))
    interventional[:, 1:] = _NOISE * margin * noise
    edges = data_quantiles(torch.arange(1, TILES) / TILES)
    tiles = Truth(
        names=tuple(f"tile {i}" for i in range(TILES)),
        scalars=one_hot_scalars(
            lambda inputs: torch.searchsorted(edges, inputs[:, 0].contiguous()), TILES
        ),
        covectors=trunk(_on_curve(tile_middles())),
    )
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(
                f"T2 {name}",
                trunk,
                each.reader(torch.randn(KNOTS, _OUTPUTS, generator=draw("effects"))),
            ),
            data=data,
            interventional=interventional,
            activations_truth=tiles,
            model_truth=_neurons_truth(trunk, each),
        )
        for name, each in neurons.items()
    )
    return Testbed(
        name="T2",
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=partial(own_scores, neurons),
        known=partial(known_numbers, arms, neurons),
        draw=partial(_draw, arms[0], neurons[arms[0].name]),
    )


def _knots() -> dict[str, Tensor]:
    left, right = (crucial_knots(start, KNOTS) for start in CRUCIAL.values())
    return {"crucial_left": left, "uniform": even_knots(KNOTS), "crucial_right": right}


def _on_curve(t: Tensor) -> Tensor:
    """Inputs without noise."""
    return torch.cat([t[:, None], t.new_zeros(len(t), _D)], 1)


def tile_middles() -> Float[Tensor, " tile"]:
    """The t of the tiles' middles, by share of the data."""
    return data_quantiles((torch.arange(TILES) + 0.5) / TILES)


def _neurons_truth(trunk: nn.Module, neurons: Neurons) -> Truth:
    return Truth(
        names=tuple(f"neuron at t = {t:.3f}" for t in neurons.knots.tolist()),
        scalars=lambda inputs: neurons.values(trunk(inputs)),
        covectors=neurons.directions,
    )


def own_scores(
    neurons: Mapping[str, Neurons], arm: Arm, decomposition: Decomposition
) -> Mapping[str, float]:
    """Resolution, match of directions, and faithfulness off the data.

    "resolution" is S_res, see `resolution_score`. "decoder_match" is the mean |cosine| between the
    v_k and their directions, matched one to one, not corrected for chance: 500 directions in R^10
    that lie anywhere on the curve have one near every knot.
    """
    own = neurons[arm.name]
    return {
        "resolution": resolution_score(
            latent_centres(arm, decomposition), data=arm.data[:, 0], model=own.knots
        ),
        "decoder_match": match(cosine(decomposition.directions, own.directions)),
        "off_manifold_faithfulness": faithfulness(arm, decomposition, arm.interventional),
    }


def latent_centres(arm: Arm, decomposition: Decomposition) -> Float[Tensor, " centre"]:
    """The t of the curve at which each latent that is ever on is largest."""
    t = (torch.arange(_GRID) + 0.5) / _GRID
    activations = arm.subject.module.get_submodule("trunk")(_on_curve(t))
    return centres(decomposition.encode(activations).dense(), t)


def known_numbers(arms: Sequence[Arm], neurons: Mapping[str, Neurons]) -> Sequence[KnownNumber]:
    """What the construction promises; no figures of T2 are published."""
    found: list[KnownNumber] = []
    for arm in arms:
        own = neurons[arm.name]
        score = partial(resolution_score, data=arm.data[:, 0], model=own.knots)
        found += [
            _promise(
                f"{arm.name}: largest a_k beyond its neighbours", 0.0, firing_beyond(arm, own)
            ),
            _promise(f"{arm.name}: S_res of the model's knots", 1.0, score(own.knots)),
            # 500 quantiles of a density, against 20 000 draws from it.
            _promise(f"{arm.name}: S_res of 500 oracle tiles", 0.0, score(tile_middles()), 0.02),
        ]
        if arm.name in CRUCIAL:
            inside = (own.knots - CRUCIAL[arm.name]).div(SEGMENT).floor() == 0
            share = float(inside.float().mean())
            found.append(_promise(f"{arm.name}: share of knots in a tenth of t", 0.5, share))
    return found


def _promise(name: str, expected: float, measured: float, tolerance: float = 1e-6) -> KnownNumber:
    return KnownNumber(
        name=name,
        expected=expected,
        tolerance=tolerance,
        measured=measured,
        source="by construction",
    )


def firing_beyond(arm: Arm, neurons: Neurons) -> float:
    """Largest value of a neuron on the curve, outside ``(t_{k-1}, t_{k+1})``."""
    t = (torch.arange(10 * _GRID) + 0.5) / (10 * _GRID)
    values = arm.model_truth.values(_on_curve(t))
    knots = neurons.knots
    before, after = ((other - knots) % 1 for other in (knots.roll(1), knots.roll(-1)))
    behind, ahead = 1 - before, after
    offset = (t[:, None] - knots) % 1
    outside = (offset >= ahead) & (offset <= 1 - behind)
    return float(values[outside].amax())


def _draw(
    arm: Arm, neurons: Neurons, decompositions: Mapping[str, Decomposition]
) -> Sequence[Picture]:
    """How densely data, knots and latents lie along the curve; and one stretch of the neurons."""
    t = (torch.arange(200) + 0.5) / 200
    density = data_density(t)
    lines = [
        Marks(kind="line", title="data", role="data", x=t, y=density),
        Marks(
            kind="line",
            title=f"the model's {KNOTS} knots",
            role="model",
            x=t[5::10],
            y=_histogram(neurons.knots),
        ),
    ]
    for name, decomposition in decompositions.items():
        found = latent_centres(arm, decomposition)
        lines.append(
            Marks(
                kind="line",
                title=f"latents of {name}",
                role="found",
                x=t[5::10],
                y=_histogram(found),
            )
        )
    stretch = torch.linspace(0.1, 0.3, 801)
    values = arm.model_truth.values(_on_curve(stretch))
    shown = (values.amax(0) > 0.5).nonzero()[:, 0].tolist()
    return (
        Picture(
            title=f"Resolution along the curve, arm {arm.name}",
            caption=(
                "Density in t, 1 on average. A dictionary of activations places its latents by "
                "the data; the model's knots crowd where the data are rare."
            ),
            x_title="t",
            y_title="density",
            marks=tuple(lines),
        ),
        Picture(
            title=f"The model's neurons near its crucial segment, arm {arm.name}",
            caption="Each is on between its neighbours only, and 1 at its knot.",
            x_title="t",
            y_title="a_k",
            marks=tuple(
                Marks(
                    kind="line",
                    title=arm.model_truth.names[k],
                    role="model",
                    x=stretch[near],
                    y=values[near, k],
                )
                for k in shown
                if (near := values[:, k] > 0).any()
            ),
        ),
    )


def _histogram(t: Tensor) -> Tensor:
    """Density of some t in 20 bins, 1 on average."""
    bins = (t * 20).long().clamp(0, 19)
    return torch.bincount(bins, minlength=20).float() * 20 / max(1, len(t))


KINDS: tuple[TestbedKind, ...] = (
    TestbedKind(
        name="T2",
        title="Dictionary mismatch: 500 latents, 100 neurons",
        claim=(
            "A dictionary of activations is fine where the data are dense; the model's may be fine "
            "elsewhere, and nothing in the activations says where."
        ),
        build=build,
        references=("chughtai2025",),
    ),
)
