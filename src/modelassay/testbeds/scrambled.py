"""A hidden code that only its own reader can use: a control.

Construction (after the encryption argument of Lampinen et al. 2025): eight plain features g, each
U[0, 4] with chance 0.2, and eight used features f, each U[-1, 1], all independent. The trunk
scrambles f by additive couplings of its halves (f_1, f_2), one after the other,

    f_1 += 3 sin(A f_2 + a),    f_2 += 3 sin(B f_1 + b),

with A, B of entries 3 and -3 and orthogonal rows, and writes z = Q (g, scrambled f), Q a random
rotation. Each step can be undone exactly, by subtracting instead of adding in the reverse order,
and arm "decoder" does so: it outputs f. Arm "plain" reads g.

- Model's truth: f in arm "decoder" (no linear map reads it, so there are no covectors), g in arm
  "plain", with covectors.
- Activations' truth: g in both arms: the only structure that lies open in the activations.
- Interventional: fresh inputs; all features are independent in the data already.

Prediction: any linear or sparse method finds g, in both arms, and f in neither: V = 0 in arm
"decoder", where the model uses f alone. "Not found" does not mean "not used".

Known: a step adds a term of variance 9/2 whose phase is nearly uniform, so a coordinate of f, of
variance 1/3, keeps ``R^2 = (1/3) / (1/3 + 9/2) = 2/29`` of a linear reading.
"""

from collections.abc import Mapping, Sequence
from typing import final

import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.boolean_circuits import affine
from modelassay.testbeds.found import found_grid
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

N_PLAIN, N_USED = 8, 8
_ON = 0.2
_PLAIN_SIZE = 4.0  # so that they stand out from the scrambled code (ours)
_AMPLITUDE, _FREQUENCY = 3.0, 3.0
_ORTHOGONAL = torch.tensor(scipy.linalg.hadamard(N_USED // 2)).float()
_N_DATA, _N_INTERVENTIONAL = 20_000, 6000
_SIZE = Size(width=48, k=8, tokens=400_000, batch_tokens=512)


@final
class Couplings(nn.Module):
    """Additive couplings of two halves; what is in front of the last columns passes."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        half = N_USED // 2
        signs = torch.randint(2, (2, 1, half), generator=generator) * 2 - 1
        # Orthogonal rows: two coordinates that get like terms would show their difference.
        weights = _FREQUENCY * _ORTHOGONAL * signs
        phases = torch.rand(2, half, generator=generator) * 2 * torch.pi
        self.weights = nn.Parameter(weights, requires_grad=False)
        self.phases = nn.Parameter(phases, requires_grad=False)

    def forward(self, features: Float[Tensor, "input feature"]) -> Float[Tensor, "input feature"]:
        """Scramble the last columns."""
        return self._run(features, (0, 1), 1)

    def undo(self, code: Float[Tensor, "input feature"]) -> Float[Tensor, "input feature"]:
        """The inverse of `forward`."""
        return self._run(code, (1, 0), -1)

    def _run(self, features: Tensor, steps: tuple[int, int], sign: int) -> Tensor:
        plain = features[:, :-N_USED]
        halves = list(features[:, -N_USED:].chunk(2, 1))
        for step in steps:
            other = halves[1 - step] @ self.weights[step].T + self.phases[step]
            halves[step] = halves[step] + sign * _AMPLITUDE * other.sin()
        return torch.cat([plain, *halves], 1)


@final
class Decoder(nn.Module):
    """Rotates back, undoes the couplings, and outputs the used features."""

    def __init__(self, rotation: Float[Tensor, "d d"], couplings: Couplings) -> None:
        super().__init__()
        self.back = affine(rotation.T)
        self.couplings = couplings

    def forward(self, activations: Float[Tensor, "input d"]) -> Float[Tensor, "input used"]:
        """f."""
        return self.couplings.undo(self.back(activations))[:, -N_USED:]


def draw_features(count: int, generator: torch.Generator) -> Float[Tensor, "input feature"]:
    """Plain features, then used ones."""
    plain = _PLAIN_SIZE * torch.rand(count, N_PLAIN, generator=generator)
    plain = plain * (torch.rand(count, N_PLAIN, generator=generator) < _ON)
    return torch.cat([plain, torch.rand(count, N_USED, generator=generator) * 2 - 1], 1)


def build(seed: int) -> Testbed:
    """T10.scrambled."""

    def generator(purpose: str) -> torch.Generator:
        return derived(seed, "T10.scrambled", purpose)

    d = N_PLAIN + N_USED
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator("rotation")))[0]
    couplings = Couplings(generator("couplings"))
    trunk = nn.Sequential(couplings, affine(rotation))
    read = rotation.T[:N_PLAIN]
    plain = Truth(
        names=tuple(f"plain {i}" for i in range(N_PLAIN)),
        scalars=lambda inputs: inputs[:, :N_PLAIN],
        covectors=read,
    )
    used = Truth(
        names=tuple(f"used {i}" for i in range(N_USED)),
        scalars=lambda inputs: inputs[:, N_PLAIN:],
    )
    data = draw_features(_N_DATA, generator("data"))
    interventional = draw_features(_N_INTERVENTIONAL, generator("interventional"))
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(f"T10.scrambled {name}", trunk, reader),
            data=data,
            interventional=interventional,
            activations_truth=plain,
            model_truth=truth,
        )
        for name, reader, truth in (
            ("decoder", Decoder(rotation, couplings), used),
            ("plain", affine(read), plain),
        )
    )
    return Testbed(
        name="T10.scrambled",
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=_own_scores,
        known=lambda: _known(arms[0]),
        draw=lambda decompositions: found_grid(
            "Plain and scrambled features",
            arms[0],
            {"what is read": used, "what lies open": plain},
            decompositions,
        ),
    )


def linear_r2(
    values: Float[Tensor, "input latent"], targets: Float[Tensor, "input feature"]
) -> float:
    """Share of the targets' variance that a linear map of the values predicts.

    Least squares on the first half of the inputs, ``1 - residual / variance`` on the second, as a
    mean over the targets.
    """
    half = len(values) // 2
    design = torch.cat([values, torch.ones(len(values), 1)], 1).double()
    targets = targets.double()
    # Silent latents leave the design without full rank: the default driver cannot take that.
    weights = torch.linalg.lstsq(design[:half], targets[:half], driver="gelsd").solution
    residual = (targets[half:] - design[half:] @ weights).square().sum(0)
    total = (targets[half:] - targets[half:].mean(0)).square().sum(0)
    return float((1 - residual / total).mean())


def _own_scores(arm: Arm, decomposition: Decomposition) -> Mapping[str, float]:
    values = arm.codes(decomposition).dense()
    return {"read_linear_r2": linear_r2(values, arm.model_truth.values(arm.interventional))}


def _known(decoder: Arm) -> Sequence[KnownNumber]:
    used = decoder.model_truth.values(decoder.data)
    return (
        KnownNumber(
            name="largest error of the decoded features",
            expected=0.0,
            # Each of two steps can enlarge rounding, some 1e-6, by |3 A| = 18.
            tolerance=1e-3,
            measured=float((decoder.output() - used).abs().max()),
            source="derived: couplings are undone exactly, up to rounding",
        ),
        KnownNumber(
            name="R^2 of the best linear reading of the used features from the site",
            expected=2 / 29,
            tolerance=0.01,
            measured=linear_r2(decoder.activations, used),
            source="derived: (1/3) / (1/3 + 9/2), see the testbed's docstring",
        ),
    )


KIND = TestbedKind(
    name="T10.scrambled",
    title="Scrambled code",
    claim="What a model uses may lie in its activations in a form that only its own reader can "
    "undo: no linear or sparse method finds it, and what lies open is not used.",
    build=build,
    references=("lampinen2025",),
)
