"""T4a: a layer that computes x², of which the model reads one direction and the data fill ten.

Ten neurons of a scalar x, uniform on [-1, 1], turned by a random rotation Q::

    a(x) = Q ReLU(s x - knots)              s_k = ±1, knots 0, .2, .4, .6, .8 on either side of 0
    y(x) = w . a(x) + bias                  w the least-squares weights for the arm's target

The arms are four targets: x², x³, |x| and sin(pi x). They share a(x) bit for bit.

- **Model truth**: the read-out itself, one scalar w . a(x) with the covector w.
- **Truth of the activations**: a(x) runs along a curve of ten straight pieces, the tiles of x
  between neighbouring knots. With t_j the tangent of piece j and s_j(x) in [0, .2] how far x has
  come along it from 0, ``a(x) = sum_j s_j(x) t_j`` holds exactly: ten scalars, ten directions.

Matching is by direction, not by value: the score on the second principal component correlates
with x² at 0.96 or more, though no component points along w. In ten dimensions the best of a few
random directions points along w by 0.6 or more, so nulls and known numbers matter here.

The knots lie on both sides of 0: were all neurons open to the right, the first one would carry the
linear part of every read-out, and be found as the model's feature (cos .83). There is one scalar
input, hence no dependency among inputs to break: the interventional inputs are fresh ones.

Prediction: activations alone give pieces or smooth modes, PAD~ = 0; the local interaction basis
gives w exactly.

Source: the x² network of the post on activation-space interpretability (example 4a).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import SITE, Arm, arm_subject
from modelassay.testbeds.hinges import TARGETS, Hinges, two_sided
from modelassay.testbeds.picture import Drawing, Grid, Marks, Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.relu_pieces_known import known
from modelassay.testbeds.scores import cosine, graph_score
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth, is_active

_SIZE = Size(width=16, k=2, l1_coefficient=1.0, tokens=400_000, batch_tokens=1024)
_N_DATA, _N_INTERVENTIONAL = 20_000, 4_000


def build(seed: int) -> Testbed:
    """Ten two-sided hinges, rotated; one arm a target."""
    hinges = two_sided()
    rotation = _rotation(seed, len(hinges))
    trunk = _trunk(hinges, rotation)
    inputs = {
        purpose: 2 * torch.rand(count, 1, generator=derived(seed, "T4a", purpose)) - 1
        for purpose, count in (("data", _N_DATA), ("interventional", _N_INTERVENTIONAL))
    }
    pieces = _pieces(hinges, rotation)
    arms = tuple(_arm(name, hinges, rotation, trunk, pieces, inputs) for name in TARGETS)
    return Testbed(
        name="T4a",
        seed=seed,
        arms=arms,
        size=_SIZE,
        similarity="directions",
        own_scores=own_scores,
        known=lambda: known(arms[0]),
        draw=lambda found: draw(arms, found),
    )


def _arm(
    name: str,
    hinges: Hinges,
    rotation: Tensor,
    trunk: nn.Module,
    pieces: Truth,
    inputs: dict[str, Tensor],
) -> Arm:
    read_out = hinges.read_out(TARGETS[name])
    covector = rotation @ read_out.weights.float()
    reader = _linear(covector[None], torch.tensor([read_out.bias]))
    return Arm(
        name=name,
        subject=arm_subject(name, trunk, reader),
        activations_truth=pieces,
        model_truth=Truth(
            names=(f"read-out of the {name}",),
            scalars=lambda x: trunk(x) @ covector[:, None],
            covectors=covector[None],
        ),
        data=inputs["data"],
        interventional=inputs["interventional"],
    )


def own_scores(arm: Arm, decomposition: Decomposition) -> dict[str, float]:
    """How near a latent points along w, and how many latents the read-out needs."""
    covectors = arm.model_truth.covectors
    assert covectors is not None
    values = decomposition.encode(arm.activations).dense()
    active = is_active(arm.model_truth.values(arm.data))
    graph = graph_score(values, decomposition.directions, covectors, active)
    return {
        "cosine": float(_nearest(decomposition, covectors).max()),
        "n_eff": 1 / graph if graph > 0 else math.nan,
    }


def _nearest(
    decomposition: Decomposition, covectors: Float[Tensor, "feature d"]
) -> Float[Tensor, "latent feature"]:
    """|cosine| of latents with features, by what they read with or by where they point."""
    return torch.maximum(
        cosine(decomposition.covectors, covectors), cosine(decomposition.directions, covectors)
    )


def _rotation(seed: int, d: int) -> Float[Tensor, "d d"]:
    return torch.linalg.qr(torch.randn(d, d, generator=derived(seed, "T4a", "rotation")))[0]


def _trunk(hinges: Hinges, rotation: Tensor) -> nn.Module:
    return nn.Sequential(
        _linear(hinges.signs[:, None].float(), -hinges.knots.float()),
        nn.ReLU(),
        _linear(rotation, None),
    )


def _linear(weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight.data = weight.clone()
    if bias is not None:
        layer.bias.data = bias.clone()
    return layer


def _pieces(hinges: Hinges, rotation: Tensor) -> Truth:
    """The straight pieces of the curve: how far x is along each, and its tangent."""
    joints = torch.cat([hinges.signs * hinges.knots, torch.tensor([-1.0, 1.0]).double()])
    joints = torch.tensor(sorted({round(float(joint), 9) for joint in joints}))
    low, high = joints[:-1], joints[1:]
    inner = torch.where(low >= 0, low, high)  # the end of each piece that is nearer to 0
    middle = (low + high).double() / 2
    tangents = middle.sign()[:, None] * hinges.signs * (hinges(middle) > 0)  # away from 0

    def scalars(x: Tensor) -> Tensor:
        return (x.clamp(low, high) - inner).abs()

    return Truth(
        names=tuple(
            f"{a:.1f} to {b:.1f}" for a, b in zip(low.tolist(), high.tolist(), strict=True)
        ),
        scalars=scalars,
        covectors=tangents.float() @ rotation.T,
    )


def draw(arms: Sequence[Arm], decompositions: Mapping[str, Decomposition]) -> list[Drawing]:
    """What the latent nearest to w computes, and how near each method comes in each arm."""
    square = arms[0]
    x = torch.linspace(-1, 1, 201)[:, None]
    marks = [
        Marks(kind="line", title=name, role="activations", x=x[:, 0], y=values)
        for name, values in zip(
            square.activations_truth.names,
            (square.activations_truth.values(x) / 0.2).unbind(1),
            strict=True,
        )
    ]
    read = _scaled(square.model_truth.values(x)[:, 0])
    marks.append(Marks(kind="line", title="read-out", role="model", x=x[:, 0], y=read))
    pictures: list[Drawing] = [
        Picture(
            title="What the model reads, and the pieces that the activations run along",
            caption="Each piece of the curve in ten dimensions rises from 0 to 1 on one tile of "
            "x and then stays. The model reads one weighted sum of all of them, close to x².",
            x_title="x",
            y_title="value, scaled to [0, 1]",
            marks=tuple(marks),
        )
    ]
    if decompositions:
        pictures += [_nearest_latents(square, x, decompositions), _cosines(arms, decompositions)]
    return pictures


def _scaled(values: Float[Tensor, " input"]) -> Float[Tensor, " input"]:
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-12)


def _nearest_latents(arm: Arm, x: Tensor, decompositions: Mapping[str, Decomposition]) -> Picture:
    covectors = arm.model_truth.covectors
    assert covectors is not None
    activations = arm.subject.run(x, read=[SITE], until=SITE).activations[SITE]
    wanted = arm.model_truth.values(x)[:, 0]
    marks = [
        Marks(kind="line", title="read-out", role="model", x=x[:, 0], y=_scaled(wanted)),
    ]
    for name, decomposition in decompositions.items():
        best = int(_nearest(decomposition, covectors)[:, 0].argmax())
        values = decomposition.encode(activations).dense()[:, best]
        # The sign of a direction is free where codes are signed: turn it the way of w.
        along = torch.dot(values - values.mean(), wanted - wanted.mean())
        values = _scaled(-values if float(along) < 0 else values)
        marks.append(Marks(kind="line", title=name, role="found", x=x[:, 0], y=values))
    return Picture(
        title="The latent of each method that points most nearly along w",
        caption="A latent that is the model's feature would follow the read-out's curve.",
        x_title="x",
        y_title="value, scaled to [0, 1]",
        marks=tuple(marks),
    )


def _cosines(arms: Sequence[Arm], decompositions: Mapping[str, Decomposition]) -> Grid:
    """Rows are methods that saw the first arm, columns the read-outs of all arms."""
    covectors = torch.cat([arm.model_truth.covectors for arm in arms])  # pyright: ignore
    rows = [_nearest(each, covectors).amax(0) for each in decompositions.values()]
    return Grid(
        title=f"Largest |cosine| with the read-outs, methods run in the arm {arms[0].name!r}",
        caption="Only its own arm's read-out should be found, at 1; chance is 0.6 for ten latents.",
        values=torch.stack(rows),
        row_names=tuple(decompositions),
        column_names=tuple(arm.name for arm in arms),
    )


KINDS: tuple[TestbedKind, ...] = (
    TestbedKind(
        name="T4a",
        title="x² from ten ReLUs",
        claim="A layer that computes x² has one direction that the model reads, and nine that it "
        "does not. No structure of the activations shows which.",
        build=build,
        references=("chughtai2025",),
    ),
)
