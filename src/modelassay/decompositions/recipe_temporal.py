"""`Temporal`: which temporal dictionary to fit."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.recipe_parts import check_k
from modelassay.decompositions.sparsifiers import TopKActivation
from modelassay.decompositions.temporal import TemporalDictionary
from modelassay.decompositions.temporal_attention import ContextAttention, check_heads
from modelassay.subjects.site import Site


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Temporal:
    """A `TemporalDictionary` whose novel codes are the k largest of every token.

    Decoder rows start as standard normal draws, an untied encoder as their transpose, and `b_dec`
    as the data's mean (ours: the reference starts from zero, and spends its predictions on a mean
    that no context is needed for). It is no `Recipe`, whose dictionaries know no contexts:
    `fit_temporal` takes it.

    Reference: Lubana et al. 2025, section 5 and appendix B.
    """

    references: ClassVar[tuple[str, ...]] = ("lubana2025",)

    width: int
    """Number of latents, a multiple of ``heads * bottleneck``."""
    k: int = 32
    """Novel latents a token; the published ones have 192 and 256, of models of 2 B and 8 B."""
    layers: int = 1
    """Attention layers, each of which predicts what those before it left."""
    heads: int = 8
    """Of each layer."""
    bottleneck: int = 64
    """The width over that of all queries or keys."""
    tied: bool = True
    """Whether the encoder stays the decoder's transpose."""

    def __post_init__(self) -> None:
        check_k(self.k, self.width)
        if self.layers < 1:
            raise ValueRangeError(
                f"layers must be at least 1; got {self.layers}. Without one, fit a TopK."
            )
        check_heads(self.width, heads=self.heads, bottleneck=self.bottleneck)

    def build(
        self,
        data_mean: Float[Tensor, " d"],
        input_scale: float,
        generator: torch.Generator,
        site: Site | None = None,
    ) -> TemporalDictionary:
        """An untrained dictionary.

        Args:
            data_mean: of unscaled activations.
            input_scale: what they are multiplied with.
            generator: draws the weights; the dictionary is made on its device.
            site: where the activations stand.
        """
        size = (self.width, len(data_mean))
        decoder = torch.randn(size, generator=generator, device=generator.device)
        dictionary = TemporalDictionary(
            W_dec=decoder,
            b_dec=(input_scale * data_mean).to(decoder),
            W_enc=None if self.tied else decoder.t(),
            activation=TopKActivation(self.k),
            layers=self.layers,
            heads=self.heads,
            bottleneck=self.bottleneck,
            input_scale=input_scale,
            site=site,
            name=f"Temporal {self.width} (k={self.k})",
        )
        for attention in dictionary.attn_layers:
            assert isinstance(attention, ContextAttention)
            attention.draw(generator)
        return dictionary

    def as_json(self) -> dict[str, Any]:
        """Its name and its fields."""
        return {"kind": "Temporal"} | asdict(self)
