"""What the makers of fixtures share: sizes, inputs, random weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

D, WIDTH, K = 12, 24, 4


def draws(seed: int) -> torch.Generator:
    """A generator of its own for every fixture, so that adding one changes no other."""
    return torch.Generator().manual_seed(seed)


def inputs(seed: int = 0, tokens: int = 8) -> Tensor:
    """Activations that are neither centred nor of unit scale."""
    return 2 * torch.randn(tokens, D, generator=draws(seed)) + 0.5


@torch.no_grad()
def randomise(module: nn.Module, seed: int) -> None:
    """Draw every parameter anew: no bias zero, no row of unit length, nothing tied."""
    generator = draws(seed)
    for name, parameter in module.named_parameters():
        scale = 0.5 if parameter.ndim == 1 else D**-0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        if "threshold" in name:
            parameter.abs_()


def save_expected(folder: Path, x: Tensor, features: Tensor, reconstruction: Tensor) -> None:
    """Write what the library computes beside what it wrote."""
    tensors = {"x": x, "features": features, "reconstruction": reconstruction}
    plain = {name: tensor.detach().to_dense().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / "expected.safetensors")
