"""What a term of a loss sees, and what it returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.batch import BatchCodes
from modelassay.decompositions.dictionary import Dictionary


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """One batch on its way through a dictionary."""

    dictionary: Dictionary
    activations: Float[Tensor, "token d_in"]
    codes: BatchCodes
    """The latents' values, differentiable."""
    reconstruction: Float[Tensor, "token d_out"]
    total_variance: float
    """Mean squared distance of an activation from the mean, over all data."""
    dead: Int[Tensor, " dead"]
    """The latents that were dead at the last census."""
    sparsity_factor: float
    """How far the sparsity penalty's warm-up has got: 0 to 1."""
    progress: float = 0.0
    """Share of the run that is done: 0 to 1."""
    nested: Float[Tensor, "prefix token d_out"] | None = None
    """Reconstructions by the first latents, for every prefix; None for a dictionary without."""
    prefixes: tuple[int, ...] = ()
    """Sizes of the nested dictionaries, the last one the width; none where there is but one."""

    @property
    def values(self) -> Float[Tensor, "*selected"]:
        """Latent values: [token, latent], or what a sparsifier selected of it."""
        return self.codes.values

    @property
    def indices(self) -> Int[Tensor, "*selected"] | None:
        """The latent of each selected value; None where all were."""
        return self.codes.indices

    def residual(self) -> Float[Tensor, "token d_out"]:
        """What the reconstruction leaves: activations - reconstruction."""
        return self.activations - self.reconstruction

    def penalty_weights(self) -> Float[Tensor, " width"]:
        """What a unit of each latent's value costs: the norm of its decoder row.

        Where dictionaries are nested, times the share of them that the latent belongs to: the mean
        of what each would pay.
        """
        norms = self.dictionary.W_dec.norm(dim=1)
        if not self.prefixes:
            return norms
        ends = torch.tensor(self.prefixes, device=norms.device)
        latents = torch.arange(len(norms), device=norms.device)
        without = torch.searchsorted(ends, latents, right=True)
        return norms * (1 - without / len(ends))


@runtime_checkable
class Objective(Protocol):
    """A term of a loss."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch, in units of the data's total variance."""
        ...


@runtime_checkable
class StatefulObjective(Objective, Protocol):
    """A term that changes with what it has seen; a checkpoint keeps that."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run must know."""
        ...

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from where the term stood whose `state` this was."""
        ...
