"""A dictionary's weights as functions of what is trained in their place."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.decompositions.dictionary import Dictionary


class Parametrisation(nn.Module, ABC):
    """Makes some of a dictionary's parameters out of parameters of its own.

    Training goes on as usual on the made ones; their gradients are passed on, and the optimiser
    moves the module's parameters. What comes out of training is an ordinary dictionary. Buffers of
    the module are constants; checkpoints keep them.
    """

    @abstractmethod
    def forward(self) -> dict[str, Tensor]:
        """The made parameters by their names in the dictionary, differentiable."""

    def project(self) -> None:
        """Bring the module's parameters back to where they may be, after an optimiser's step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FromActivations:
    """A parametrisation that is made of some activations besides the dictionary."""

    tokens: int
    """How many are wanted; it may get fewer, if there are no more."""
    make: Callable[[Dictionary, Float[Tensor, "token d_in"], torch.Generator], Parametrisation]
    """From an untrained dictionary, activations as training sees them, drawn at random, and a
    generator on the CPU."""
