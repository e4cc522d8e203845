"""The parameters in which the magnitudes of gated dictionaries are learned."""

from typing import final

import torch
from torch import Tensor, nn

from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.gated import GatedActivation
from modelassay.fitting.parametrisation import Parametrisation


@final
class MagnitudeBias(Parametrisation):
    """The magnitudes' bias in the place of their offset: `o = b_mag - exp(r) b_gate`.

    A gated dictionary is stored with offsets o, so that values depend on pre-activations alone
    (`GatedActivation`). Learned are the reference's own parameters: the gradient of a magnitude
    then reaches b_mag and not the gate's bias, and that of r is by `x̃ W exp(r)` without the
    bias.

    Reference:
        Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders",
        section 3.2.

    Raises:
        TypeError: if the dictionary is not a gated one.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        gates = dictionary.activation
        if not isinstance(gates, GatedActivation):
            raise TypeError(f"Magnitudes must belong to a gated dictionary; got {gates.kind}.")
        # In a tuple, so that they do not become parameters of this module too.
        self._shared = (gates.log_gain, dictionary.b_enc)
        with torch.no_grad():
            bias = gates.offset + gates.log_gain.exp() * dictionary.b_enc
        self.bias = nn.Parameter(bias)

    def forward(self) -> dict[str, Tensor]:
        """The offsets."""
        log_gain, b_gate = self._shared
        return {"activation.offset": self.bias - log_gain.exp() * b_gate}
