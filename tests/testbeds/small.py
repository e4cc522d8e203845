"""A small testbed: sparse features in a rotated space, of which each arm reads some pairs' sums."""

import torch
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

D, N_FEATURES = 12, 8


def rotation(seed: int) -> Tensor:
    return torch.linalg.qr(torch.randn(D, D, generator=derived(seed, "small", "rotation")))[0]


def sparse_inputs(seed: int, count: int, purpose: str) -> Tensor:
    generator = derived(seed, "small", purpose)
    on = torch.rand(count, N_FEATURES, generator=generator) < 0.2
    return on * torch.rand(count, N_FEATURES, generator=generator)


def linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return layer


def arm(
    name: str,
    pairs: Tensor,
    *,
    seed: int = 0,
    trunk: nn.Module | None = None,
    count: int = 2000,
    data: Tensor | None = None,
) -> Arm:
    """An arm whose reader takes the given sums of features."""
    columns = rotation(seed)[:, :N_FEATURES]
    trunk = trunk or linear(columns)
    covectors = pairs @ columns.T
    return Arm(
        name=name,
        subject=arm_subject(name, trunk, linear(covectors)),
        data=sparse_inputs(seed, count, "data") if data is None else data,
        interventional=sparse_inputs(seed, 1500, "interventional"),
        activations_truth=Truth(
            names=tuple(f"feature {i}" for i in range(N_FEATURES)),
            scalars=lambda inputs: inputs,
            covectors=columns.T,
        ),
        model_truth=Truth(
            names=tuple(f"sum {i}" for i in range(len(pairs))),
            scalars=lambda inputs: inputs @ pairs.T,
            covectors=covectors,
        ),
    )


def contrasts(order: list[int]) -> Tensor:
    """Sums of four features with signs: far from each single feature."""
    eye = torch.eye(N_FEATURES)
    signs = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]])
    return torch.cat([signs @ eye[order[:4]], signs @ eye[order[4:]]])


def build(seed: int) -> Testbed:
    trunk = linear(rotation(seed)[:, :N_FEATURES])
    orders = {"near": [0, 1, 2, 3, 4, 5, 6, 7], "far": [0, 4, 1, 5, 2, 6, 3, 7]}
    return Testbed(
        name="small",
        seed=seed,
        arms=tuple(
            arm(name, contrasts(order), seed=seed, trunk=trunk) for name, order in orders.items()
        ),
        size=Size(width=8, k=2, tokens=50_000, batch_tokens=256),
    )


KINDS = (TestbedKind(name="small", title="Small", claim="For tests.", build=build),)
