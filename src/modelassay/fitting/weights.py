"""What of a dictionary is trained: its parameters, or what they are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.parametrisation import FromActivations, Parametrisation
from modelassay.fitting.training import Training

_ROWS = 1024  # of the decoder, looked at together: ours
_SPARSIFIER = "activation."  # names of the sparsifier's own parameters begin so


@dataclass(frozen=True, kw_only=True, slots=True)
class DataScale:
    """What training must know of all activations, in the scaled units that it works in."""

    mean: Float[Tensor, " d_in"]
    total_variance: float
    """Mean squared distance from the mean."""
    draw: Callable[[int], Float[Tensor, "token d_in"]] | None = None
    """Some of them at random, as many as asked for if there are; None where they are unknown."""


class TrainedWeights:
    """A dictionary's parameters where training moves them.

    Args:
        dictionary: trained in place.
        training: says what its parameters are made of, and whether decoder rows have norm 1.
        data: what a parametrisation may be made of.
        name: of the dictionary, for errors.
        seed: of what a parametrisation draws.

    Raises:
        ValueRangeError: if activations are needed and there are none to draw from.
    """

    parameters: dict[str, nn.Parameter]
    """What the optimiser moves: the dictionary's parameters, or what they are made of."""

    def __init__(
        self,
        dictionary: Dictionary,
        training: Training,
        data: DataScale,
        *,
        name: str,
        seed: int,
    ) -> None:
        self._dictionary = dictionary
        self._training = training
        self._parametrisation = self._parametrised(data, name, seed)
        self._made: dict[str, Tensor] = {}
        self.make()
        self.parameters = {
            name: parameter
            for name, parameter in dictionary.named_parameters()
            if parameter.requires_grad and name not in self._made
        }
        if self._parametrisation is not None:
            self.parameters |= dict(self._parametrisation.named_parameters("parametrisation"))
        self._unit_decoder = training.unit_decoder and "W_dec" in self.parameters

    def _parametrised(self, data: DataScale, name: str, seed: int) -> Parametrisation | None:
        """What makes some of the dictionary's parameters, if anything does."""
        make = self._training.parametrisation
        if not isinstance(make, FromActivations):
            return make and make(self._dictionary)
        if data.draw is None:
            raise ValueRangeError(
                f"{name} must be made of activations; got only their moments. "
                "Pass what draws them, or fit another recipe."
            )
        return make.make(self._dictionary, data.draw(make.tokens), derived(seed, "parametrisation"))

    def make(self) -> None:
        """Write the parameters that are made of others into the dictionary."""
        if self._parametrisation is None:
            return
        self._made = self._parametrisation()
        for name, value in self._made.items():
            self._dictionary.get_parameter(name).data.copy_(value.detach())

    @torch.no_grad()
    def scale_encoder(self, factor: Float[Tensor, ""]) -> None:
        """Multiply the encoder, or what it is made of, with a number."""
        for name, parameter in self.parameters.items():
            if name.endswith("W_enc"):
                parameter.mul_(factor)
        with torch.enable_grad():
            self.make()

    def constants(self) -> dict[str, Tensor]:
        """What a parametrisation holds besides its parameters, and does not change."""
        if self._parametrisation is None:
            return {}
        return dict(self._parametrisation.named_buffers("parametrisation"))

    def groups(self) -> list[dict[str, Any]]:
        """The weights, and apart from them thresholds, whose gradients are of another size."""
        own = [p for n, p in self.parameters.items() if n.startswith(_SPARSIFIER)]
        weights = [p for n, p in self.parameters.items() if not n.startswith(_SPARSIFIER)]
        groups: list[dict[str, Any]] = [{"params": weights, "rate": 1.0}]
        if own:
            groups.append({"params": own, "rate": self._training.threshold_rate})
        return groups

    def pass_gradients_on(self) -> None:
        """From the made parameters to those that they are made of."""
        if self._made:
            gradients = [self._dictionary.get_parameter(name).grad for name in self._made]
            torch.autograd.backward(list(self._made.values()), gradients)

    def constrain_gradients(self) -> None:
        """Take out of each decoder row's gradient what would only change the row's length."""
        rows = self._dictionary.W_dec
        if self._unit_decoder and rows.grad is not None:
            # Some rows at a time: the products on the way to the sums then stay in cache.
            blocks = zip(rows.grad.split(_ROWS), rows.detach().split(_ROWS), strict=True)
            for gradient, row in blocks:
                along = torch.linalg.vecdot(gradient, row)
                gradient.addcmul_(row, along.unsqueeze(1), value=-1)

    @torch.no_grad()
    def project(self) -> None:
        """Bring the parameters back to where they may be, after an optimiser's step."""
        if self._unit_decoder:
            rows = self._dictionary.W_dec
            rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))
        self._dictionary.activation.project()
        if self._parametrisation is not None:
            self._parametrisation.project()
            with torch.enable_grad():
                self.make()
