"""Latents compared by what they would contribute, with decoder rows of free length."""

from typing import final

from torch import Tensor, nn

from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.parametrisation import Parametrisation


@final
class NormAware(Parametrisation):
    """Selection by `π |d|` with decoder rows d of free length.

    With π the pre-activations of the raw weights, `z = select(π |d|)` and `x̂ = Σ z_i d_i / |d_i|`.
    That is the dictionary of unit rows

        W_enc = W |d|,    b_enc = b |d|,    W_dec = d / |d|

    column by column, so training it needs nothing but these three made anew after each step; and
    what comes out is that dictionary, exactly.

    Reference:
        SAELens' `rescale_acts_by_decoder_norm`. The start is the recipe's own, with norms of 1
        (ours; 0.1 there).
    """

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        norms = dictionary.W_dec.detach().norm(dim=1)
        self.W_enc = nn.Parameter(dictionary.W_enc.detach() / norms)
        self.b_enc = nn.Parameter(dictionary.b_enc.detach() / norms)
        self.W_dec = nn.Parameter(dictionary.W_dec.detach().clone())

    def forward(self) -> dict[str, Tensor]:
        """Encoder, its bias and unit decoder rows."""
        norms = self.W_dec.norm(dim=1)
        return {
            "W_enc": self.W_enc * norms,
            "b_enc": self.b_enc * norms,
            "W_dec": self.W_dec / norms.unsqueeze(1),
        }
