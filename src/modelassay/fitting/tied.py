"""An encoder that is its decoder's transpose throughout training."""

from typing import final

import torch
from torch import Tensor, nn

from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.parametrisation import Parametrisation


@final
class Tied(Parametrisation):
    """One set of directions a for both: ``W_dec = a / |a|``, ``W_enc = W_dec^T``.

    Their gradient is that of the encoder and of the decoder together, less what would only change
    a length.
    """

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self.directions = nn.Parameter(dictionary.W_dec.detach().clone())

    def forward(self) -> dict[str, Tensor]:
        """Encoder and decoder."""
        rows = self.directions / self.directions.norm(dim=1, keepdim=True)
        return {"W_enc": rows.t(), "W_dec": rows}

    @torch.no_grad()
    def project(self) -> None:
        """Keep the length of 1, which is the scale that the learning rate means."""
        self.directions.div_(self.directions.norm(dim=1, keepdim=True))
