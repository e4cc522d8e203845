"""Matryoshka dictionaries: several nested ones in one."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.recipe_parts import check_k, tied, unit_rows
from modelassay.decompositions.sparsifiers import BatchTopKActivation, TopKActivation
from modelassay.subjects.site import Site

SHARES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
"""Prefixes as shares of the width: 2,048 to 65,536 latents in Bussmann et al. 2025, section 4."""

_SPARSIFIERS = {"topk": TopKActivation, "batchtopk": BatchTopKActivation}
_LABELS = {"topk": "TopK", "batchtopk": "BatchTopK"}


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class Matryoshka(Recipe):
    """Latents in order of generality: the first m must reconstruct without the others.

    One selection over all latents, and with ``x̂_m = b_dec + z[:m] W_dec[:m]`` the loss ``mean_m
    |x - x̂_m|²`` over the prefixes m, the last one the width. It starts as `TopK` does.

    Reference: Bussmann et al. 2025, section 3 (a sum there; a mean, as in dictionary_learning,
    leaves the other terms their weight).
    """

    references: ClassVar[tuple[str, ...]] = ("bussmann2025",)

    k: int = 32
    """Mean number of active latents per token; the default is TopK's."""
    sparsifier: Literal["topk", "batchtopk"] = "batchtopk"
    """How latents are selected: BatchTopK in the reference."""
    prefixes: tuple[int, ...] = ()
    """Sizes of the nested dictionaries, ascending, the last one the width; by default 1/32, 3/32,
    7/32, 15/32 and all of it."""

    def __post_init__(self) -> None:
        check_k(self.k, self.width)
        if self.sparsifier not in _SPARSIFIERS:
            raise ValueRangeError(
                f"sparsifier must be one of {', '.join(_SPARSIFIERS)}; got {self.sparsifier!r}. "
                "Use 'batchtopk'."
            )
        shares = sorted({max(1, int(share * self.width)) for share in SHARES})
        object.__setattr__(self, "prefixes", self.prefixes or tuple(shares))
        ascending = list(self.prefixes) == sorted(set(self.prefixes))
        if not ascending or self.prefixes[0] < 1 or self.prefixes[-1] != self.width:
            raise ValueRangeError(
                f"prefixes must ascend from at least 1 to the width, {self.width}; got "
                f"{self.prefixes}. Leave them out for the usual ones."
            )

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary; see `Recipe.build`."""
        decoder = unit_rows(self.width, d_out, generator)
        activation = _SPARSIFIERS[self.sparsifier](self.k)
        frozen = ", frozen decoder" if self.frozen_decoder else ""
        name = f"Matryoshka {_LABELS[self.sparsifier]} {self.width} (k={self.k}){frozen}"
        return tied(self, decoder, activation, d_in, data_mean, site, name)
