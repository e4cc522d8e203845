"""Activations with a planted concept."""

import torch
from torch import Tensor

from modelassay.core.randomness import generator
from modelassay.observe.probes.data import ProbeData


def planted(
    *,
    n: int = 1200,
    width: int = 24,
    strength: float = 4.0,
    n_groups: int = 60,
    n_types: int = 40,
    seed: int = 0,
) -> tuple[ProbeData, Tensor]:
    """Noise with a concept added along one direction; and that direction."""
    g = generator(seed)
    direction = torch.nn.functional.normalize(torch.randn(width, generator=g), dim=0)
    labels = torch.randint(2, (n,), generator=g)
    noise = torch.randn(n, width, generator=g)
    groups = torch.arange(n) % n_groups
    data = ProbeData(
        activations=noise + strength * (labels[:, None] - 0.5) * direction,
        labels=labels,
        groups=groups,
        group_names=tuple(f"document {number}" for number in range(n_groups)),
        types=torch.randint(n_types, (n,), generator=g),
        contexts=torch.randint(30, (n, 6), generator=g),
    )
    return data, direction
