"""The toy model of superposition, with an identity in its hidden space: a control.

Construction (Bushnaq, Braun and Sharkey 2025, TMS 40-10+ID; Elhage et al. 2022): features x in
R^40, each U[0, 1] with chance 0.05, independently, and

    h = W x in R^10,    x_hat = ReLU(W^T I h + b),    minimising |x - x_hat|^2

with AdamW (5e-3, weight decay 0.01), here in 800 steps of 512 inputs (there 10,000 of 8,192).
The site is h, in front of the identity.

- Arm "features": the trained reader. The model's truth and that of the activations are the same
  forty features: a method that finds them is right either way. Covectors: columns of W.
- Arm "mixtures": the reader takes ten random orthonormal directions of the hidden space, one
  output each: its truth, of which no latent of a single feature is a part.

A healthy dictionary grows no further than to one latent per feature. With F latents of which A
ever fire, `capacity_growth` = log(A / 40) / log(F / 40): the slope of log alive against log width
from the dictionary that has one latent per feature to this one; 0 is healthy, 1 splits features
as far as there is room.

Known: the geometry. A feature's dimensionality is ``D_i = |W_i|^2 / sum_j (W_i . W_j / |W_i|)^2``.
For five features in two dimensions (trained beside it, 2,000 steps) it is a regular pentagon, for
which ``sum_j cos^2(2 pi j / 5) = 5/2`` gives D = 2/5. The published MMCS and ML2R of these models
are numbers of parameter decompositions, which are not here yet.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.boolean_circuits import affine
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.picture import Drawing, Marks, Picture
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

N_FEATURES, N_HIDDEN = 40, 10
_ON = 0.05
_STEPS, _PENTAGON_STEPS, _BATCH = 800, 2000, 512
_RATE, _DECAY = 5e-3, 0.01
_N_DATA, _N_INTERVENTIONAL = 20_000, 6000
_SIZE = Size(width=160, k=3, tokens=300_000, batch_tokens=512)


@dataclass(frozen=True, kw_only=True, eq=False)
class ToyModel:
    """``x_hat = ReLU(W^T W x + b)``."""

    weight: Float[Tensor, "hidden feature"]
    bias: Float[Tensor, " feature"]

    def dimensionalities(self) -> Float[Tensor, " feature"]:
        """``D_i = |W_i|^2 / sum_j (W_i . W_j / |W_i|)^2``: the share of a dimension that it has."""
        unit = torch.nn.functional.normalize(self.weight, dim=0)
        return self.weight.square().sum(0) / (unit.T @ self.weight).square().sum(1)


def sparse_features(
    count: int, n_features: int, generator: torch.Generator
) -> Float[Tensor, "input feature"]:
    """Features that are U[0, 1] with chance 0.05, else 0."""
    size = torch.rand(count, n_features, generator=generator)
    return size * (torch.rand(count, n_features, generator=generator) < _ON)


def train(n_features: int, n_hidden: int, n_steps: int, generator: torch.Generator) -> ToyModel:
    """Train from Xavier-normal weights and a bias of zero."""
    deviation = math.sqrt(2 / (n_features + n_hidden))
    weight = torch.randn(n_hidden, n_features, generator=generator) * deviation
    weight.requires_grad_()
    bias = torch.zeros(n_features, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=_RATE, weight_decay=_DECAY)
    for _ in range(n_steps):
        features = sparse_features(_BATCH, n_features, generator)
        output = (features @ weight.T @ weight + bias).relu()
        optimiser.zero_grad()
        (features - output).square().mean().backward()
        optimiser.step()
    return ToyModel(weight=weight.detach(), bias=bias.detach())


def alive(decomposition: Decomposition, activations: Float[Tensor, "input d"]) -> int:
    """Number of latents that fire on some input."""
    return int((decomposition.encode(activations).firing_counts() > 0).sum())


def capacity_growth(n_alive: int, width: int, n_features: int) -> float:
    """Slope of log alive against log width, from one latent per feature; NaN if there is no room.

    Args:
        n_alive: latents that fire.
        width: latents of the dictionary.
        n_features: how many there are to be found.
    """
    if width <= n_features or n_alive == 0:
        return math.nan
    return math.log(n_alive / n_features) / math.log(width / n_features)


def build(seed: int) -> Testbed:
    """T10.toy_model."""
    model = train(N_FEATURES, N_HIDDEN, _STEPS, derived(seed, "T10.toy_model", "training"))
    normal = torch.randn(N_HIDDEN, N_HIDDEN, generator=derived(seed, "T10.toy_model", "mixtures"))
    mixtures = torch.linalg.qr(normal)[0]
    trunk = affine(model.weight)
    identity = affine(torch.eye(N_HIDDEN))
    features = Truth(
        names=tuple(f"feature {i}" for i in range(N_FEATURES)),
        scalars=lambda inputs: inputs,
        covectors=model.weight.T.contiguous(),
    )
    mixed = Truth(
        names=tuple(f"mixture {i}" for i in range(N_HIDDEN)),
        scalars=lambda inputs: inputs @ model.weight.T @ mixtures.T,
        covectors=mixtures,
    )
    readers = {
        "features": nn.Sequential(identity, affine(model.weight.T, model.bias), nn.ReLU()),
        "mixtures": nn.Sequential(identity, affine(mixtures)),
    }
    data, interventional = (
        sparse_features(count, N_FEATURES, derived(seed, "T10.toy_model", purpose))
        for count, purpose in ((_N_DATA, "data"), (_N_INTERVENTIONAL, "interventional"))
    )
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(f"T10.toy_model {name}", trunk, readers[name]),
            data=data,
            interventional=interventional,
            activations_truth=features,
            model_truth=truth,
        )
        for name, truth in (("features", features), ("mixtures", mixed))
    )
    return Testbed(
        name="T10.toy_model",
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=_own_scores,
        known=lambda: _known(seed, model),
        draw=lambda decompositions: (
            *_draw_growth(arms[0], decompositions),
            _draw_pentagon(_pentagon(seed)),
        ),
    )


def _own_scores(arm: Arm, decomposition: Decomposition) -> Mapping[str, float]:
    n_alive = alive(decomposition, arm.activations)
    growth = capacity_growth(n_alive, decomposition.width, N_FEATURES)
    return {"alive": float(n_alive), "capacity_growth": growth}


def _pentagon(seed: int) -> ToyModel:
    return train(5, 2, _PENTAGON_STEPS, derived(seed, "T10.toy_model", "pentagon"))


def _known(seed: int, model: ToyModel) -> Sequence[KnownNumber]:
    pentagon = _pentagon(seed)
    unit = torch.nn.functional.normalize(pentagon.weight, dim=0)
    nearest = (unit.T @ unit).sort(1, descending=True).values[:, 1]
    return (
        KnownNumber(
            name="mean dimensionality of five features in two dimensions",
            expected=2 / 5,
            tolerance=0.01,
            measured=float(pentagon.dimensionalities().mean()),
            source="derived: regular pentagon (Elhage et al. 2022, section on geometry)",
        ),
        KnownNumber(
            name="mean cosine of neighbours in the pentagon",
            expected=math.cos(2 * math.pi / 5),
            tolerance=0.03,
            measured=float(nearest.mean()),
            source="derived: regular pentagon, cos 72 degrees",
        ),
        KnownNumber(
            name="mean dimensionality of 40 features in ten dimensions",
            expected=N_HIDDEN / N_FEATURES,
            tolerance=0.01,
            measured=float(model.dimensionalities().mean()),
            source="derived: equal features that fill the space (a tight frame) have D = m / n",
        ),
    )


def _draw_growth(arm: Arm, decompositions: Mapping[str, Decomposition]) -> Sequence[Drawing]:
    if not decompositions:
        return ()
    widths = torch.tensor([float(each.width) for each in decompositions.values()])
    found = torch.tensor([float(alive(d, arm.activations)) for d in decompositions.values()])
    ends = torch.tensor([float(widths.min()), float(widths.max()), N_FEATURES]).sort().values
    return (
        Picture(
            title="Latents that fire, against latents that there are",
            caption=f"{', '.join(decompositions)}, in this order. On the line of one latent per "
            "feature a dictionary stops growing; on the diagonal it splits features.",
            x_title="width",
            y_title="alive",
            marks=(
                Marks(kind="points", title="methods", role="found", x=widths, y=found),
                Marks(
                    kind="line",
                    title="one latent per feature",
                    role="model",
                    x=ends,
                    y=torch.full_like(ends, N_FEATURES),
                ),
                Marks(kind="line", title="all alive", role="null", x=ends, y=ends),
            ),
        ),
    )


def _draw_pentagon(model: ToyModel) -> Picture:
    x, y = model.weight
    return Picture(
        title="Five features in two dimensions",
        caption="Columns of W after training: a regular pentagon, 2/5 of a dimension each.",
        x_title="hidden 1",
        y_title="hidden 2",
        marks=(Marks(kind="arrows", title="features", role="model", x=x, y=y),),
        equal=True,
    )


KIND = TestbedKind(
    name="T10.toy_model",
    title="Toy model of superposition with identity",
    claim="A dictionary that is too wide for a model's features should leave latents dead, not "
    "split features.",
    build=build,
    references=("elhage2022",),
)
