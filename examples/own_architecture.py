"""An architecture of one's own in one file: a sparsifier, a term of the loss, a recipe.

RelativeTopK keeps the k largest pre-activations of a token, but none that is smaller than a share
of the largest one, and keeps decoder rows apart from each other.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipe_parts import check_k, tied, unit_rows
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.fitting.architectures import register_architecture
from modelassay.fitting.conformance import check_architecture
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.objective import Forward
from modelassay.fitting.objectives.reconstruction import Reconstruction
from modelassay.fitting.training import Training
from modelassay.subjects.site import Site


class RelativeTopKActivation(Sparsifier):
    """Keep the k largest, as far as they exceed a share of the largest."""

    kind = "relative_topk"
    label = "RelativeTopK"
    compares_latents = True

    def __init__(self, k: int, share: float) -> None:
        super().__init__()
        self.k, self.share = k, share

    def settings(self) -> dict[str, Any]:
        """What the constructor is told when a saved dictionary is read."""
        return {"k": self.k, "share": self.share}

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents; a slot of value 0 is empty."""
        values, indices = pre.relu().topk(self.k, dim=1)
        return values * (values > self.share * values[:, :1]), indices


@dataclass(frozen=True, kw_only=True, slots=True)
class Coherence:
    """Mean squared cosine of different decoder rows, times a coefficient."""

    coefficient: float

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value."""
        rows = torch.nn.functional.normalize(forward.dictionary.W_dec, dim=1)
        off_diagonal = (rows @ rows.t()).square().sum() - len(rows)
        return self.coefficient * off_diagonal / (len(rows) * (len(rows) - 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class RelativeTopK(Recipe):
    """What a user writes to fit one."""

    references: ClassVar[tuple[str, ...]] = ()

    k: int = 32
    share: float = 0.1
    coherence: float = 0.1

    def __post_init__(self) -> None:
        check_k(self.k, self.width)

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        """An untrained dictionary."""
        decoder = unit_rows(self.width, d_out, generator)
        activation = RelativeTopKActivation(self.k, self.share)
        return tied(self, decoder, activation, d_in, data_mean, site)


def training(recipe: RelativeTopK) -> Training:
    """How it learns."""
    return Training(objectives=(Reconstruction(), AuxK(), Coherence(coefficient=recipe.coherence)))


register_architecture(RelativeTopK, training=training, sparsifiers=[RelativeTopKActivation])

if __name__ == "__main__":
    print(check_architecture(RelativeTopK(width=64, k=4)))
