"""A dictionary's weights as functions of what is trained in their place."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Parametrisation(nn.Module, ABC):
    """Makes some of a dictionary's parameters out of parameters of its own.

    Training goes on as usual on the made ones; their gradients are passed on, and the optimiser
    moves the module's parameters. What comes out of training is an ordinary dictionary.
    """

    @abstractmethod
    def forward(self) -> dict[str, Tensor]:
        """The made parameters by their names in the dictionary, differentiable."""

    def project(self) -> None:
        """Bring the module's parameters back to where they may be, after an optimiser's step."""
