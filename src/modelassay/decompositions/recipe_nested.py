"""Matryoshka dictionaries: several nested ones in one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary, Recipe, register_recipe
from modelassay.decompositions.recipe_parts import check_free_decoder, check_k
from modelassay.decompositions.recipe_slots import AbsTopK, GroupMax
from modelassay.decompositions.recipe_topk import BatchTopK, TopK
from modelassay.subjects.site import Site

SHARES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)
"""Prefixes as shares of the width: 2,048 to 65,536 latents in Bussmann et al. 2025, section 4."""

_OF_K = {"topk": TopK, "batchtopk": BatchTopK, "abstopk": AbsTopK, "groupmax": GroupMax}


@final
@register_recipe
@dataclass(frozen=True, kw_only=True, slots=True)
class Matryoshka(Recipe):
    """Latents in order of generality: the first m must reconstruct without the others.

    One selection over all latents, and with ``x̂_m = b_dec + z[:m] W_dec[:m]`` the loss ``mean_m
    |x - x̂_m|²`` over the prefixes m, the last one the width. A penalty on values is likewise the
    mean over the prefixes of what the first m latents pay. What is nested is a dictionary of
    another recipe: by default BatchTopK, else see `of`. It starts as that one does.

    Prefixes are fixed, or drawn anew at each step with ``P(m >= n) = n^(-1/2)``
    (`random_prefixes`), so that no latent is the first or last of its group for the whole run.

    Reference: Bussmann et al. 2025, section 3 (a sum there; a mean, as in dictionary_learning,
    leaves the other terms their weight); random prefixes as in Nabeshima's matryoshka-saes
    (which sorts the latents at each step too; here they keep their places).
    """

    references: ClassVar[tuple[str, ...]] = ("bussmann2025",)

    k: int = 32
    """Mean number of active latents per token; the default is TopK's. Of no effect beside
    `inner`."""
    sparsifier: Literal["topk", "batchtopk", "abstopk", "groupmax"] = "batchtopk"
    """How latents are selected: BatchTopK in the reference. Of no effect beside `inner`."""
    prefixes: tuple[int, ...] = ()
    """Sizes of the nested dictionaries, ascending, the last one the width; by default 1/32, 3/32,
    7/32, 15/32 and all of it."""
    random_prefixes: int = 0
    """How many nested dictionaries are drawn at each step, the whole one among them; 10 in
    Nabeshima's. 0 for the fixed `prefixes`."""
    free_decoder: bool = False
    """As `TopK`'s. Of no effect beside `inner`."""
    inner: Recipe | None = None
    """What is nested, if `k` and `sparsifier` do not say it; of the same width."""

    @staticmethod
    def of(
        inner: Recipe, *, prefixes: Sequence[int] = (), random_prefixes: int = 0
    ) -> "Matryoshka":
        """Nested dictionaries of any recipe: ``Matryoshka.of(JumpReLU(width=4096))``.

        Raises:
            ValueRangeError: if the prefixes do not ascend to the width, or there are both fixed
                and random ones.
        """
        return Matryoshka(
            width=inner.width,
            frozen_decoder=inner.frozen_decoder,
            prefixes=tuple(prefixes),
            random_prefixes=random_prefixes,
            inner=inner,
        )

    @property
    def nested(self) -> Recipe:
        """The recipe whose dictionary is nested."""
        if self.inner is not None:
            return self.inner
        return _OF_K[self.sparsifier](
            width=self.width,
            k=self.k,
            frozen_decoder=self.frozen_decoder,
            free_decoder=self.free_decoder,
        )

    def __post_init__(self) -> None:
        if self.inner is None:
            check_k(self.k, self.width)
            check_free_decoder(self.free_decoder, frozen=self.frozen_decoder)
        if self.sparsifier not in _OF_K:
            raise ValueRangeError(
                f"sparsifier must be one of {', '.join(_OF_K)}; got {self.sparsifier!r}. "
                "Use 'batchtopk', or Matryoshka.of(recipe) for any other."
            )
        _check_inner(self, self.nested)
        if self.random_prefixes:
            _check_random(self.random_prefixes, self.prefixes)
            return
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
        dictionary = self.nested.build(d_in, d_out, data_mean, generator, site)
        others = dictionary.references if self.inner is not None else ()
        frozen = ("korznikov2026",) if self.frozen_decoder else ()
        dictionary.references = tuple(dict.fromkeys((*self.references, *others, *frozen)))
        dictionary.name = f"Matryoshka {dictionary.name}"
        dictionary.recipe = self
        return dictionary


def _check_inner(outer: Matryoshka, inner: Recipe) -> None:
    if isinstance(inner, Matryoshka):
        raise ValueRangeError(
            "What is nested must not be nested itself; got a Matryoshka in a Matryoshka. "
            "Name all prefixes in one."
        )
    ours, theirs = (outer.width, outer.frozen_decoder), (inner.width, inner.frozen_decoder)
    if ours != theirs:
        raise ValueRangeError(
            f"width and frozen_decoder must be those of the nested recipe, {theirs}; got {ours}. "
            "Use Matryoshka.of(recipe), which takes them over."
        )


def _check_random(number: int, prefixes: tuple[int, ...]) -> None:
    if number < 2 or prefixes:
        raise ValueRangeError(
            "random_prefixes must be at least 2, without fixed prefixes; got "
            f"{number} and prefixes {prefixes}. Use 10, or 0 for fixed ones."
        )
