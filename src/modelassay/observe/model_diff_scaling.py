"""Latent scaling: is a latent of the tuned model's dictionary absent from the base model?

That the base's dictionary has no such latent may be the dictionary's doing: sparsity shrinks or
drops latents whose directions the base model still has. So each latent's contribution ``f_i d_i``
is fitted to what a model holds (Minder et al. 2025)::

    β_i = d_i · Σ_n f_i(n) y(n) / (‖d_i‖² Σ_n f_i(n)²)

the least-squares scale of ``f_i(n) d_i`` in a target y, and the scale in the base is compared with
that in the tuned model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from modelassay.core.errors import ProvenanceError, ShapeError
from modelassay.decompositions.codes import Codes

SPECIFIC = 0.2
"""A latent belongs to the tuned model if both ratios are below this (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ScalingSums:
    """The sums behind β, over some tokens; those of two sets of tokens add up."""

    directions: Float[Tensor, "latent width"]
    products: Float64[Tensor, "latent width"]
    """Σ f_i(n) y(n)."""
    powers: Float64[Tensor, " latent"]
    """Σ f_i(n)²."""

    @staticmethod
    def of(
        codes: Codes,
        directions: Float[Tensor, "latent width"],
        target: Float[Tensor, "token width"],
    ) -> "ScalingSums":
        """Sums over some tokens.

        Args:
            codes: f, of the latents on the tuned model.
            directions: d, one row a latent.
            target: y on the same tokens, the bias taken off: a model's activations, what a
                dictionary leaves of them, or its reconstruction.

        Raises:
            ShapeError: if codes, directions and target do not fit.
        """
        if codes.n_tokens != len(target) or (codes.width, target.shape[1]) != directions.shape:
            raise ShapeError(
                f"Codes [token, latent], directions [latent, width] and target [token, width] must "
                f"fit; got {[codes.n_tokens, codes.width]}, {list(directions.shape)} and "
                f"{list(target.shape)}. Encode the tokens that the target stands for."
            )
        values = codes.to_scipy().astype(np.float64)
        products = values.T @ target.detach().cpu().double().numpy()
        powers = np.asarray(values.multiply(values).sum(0)).ravel()
        return ScalingSums(
            directions=directions, products=torch.from_numpy(np.asarray(products)),
            powers=torch.from_numpy(powers),
        )  # fmt: skip

    def __add__(self, other: "ScalingSums") -> "ScalingSums":
        """Sums over the tokens of both.

        Raises:
            ProvenanceError: if they are of different directions.
        """
        if not torch.equal(self.directions, other.directions):
            raise ProvenanceError(
                "Sums to add must be of the same directions; got two different sets. Use one "
                "dictionary for both."
            )
        return ScalingSums(
            directions=self.directions, products=self.products + other.products,
            powers=self.powers + other.powers,
        )  # fmt: skip

    def scale(self) -> Float64[Tensor, " latent"]:
        """β of each latent; NaN for a latent that is never active."""
        d = self.directions.double().cpu()
        return (d * self.products).sum(1) / ((d * d).sum(1) * self.powers)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scaling:
    """How much of each latent of the tuned model is in the base model too."""

    error_ratio: Float64[Tensor, " latent"]
    """β in what the base's dictionary leaves, over β in what the tuned one's leaves with the latent
    put back. Near 1: the base has it, and its dictionary misses it."""
    reconstruction_ratio: Float64[Tensor, " latent"]
    """β in the base's reconstruction over that in the tuned model's. Near 1: the base's dictionary
    has it too, in other latents."""

    @property
    def specific(self) -> Bool[Tensor, " latent"]:
        """Absent from the base model: neither in its reconstruction nor in what that leaves."""
        return (self.error_ratio.abs() < SPECIFIC) & (self.reconstruction_ratio.abs() < SPECIFIC)


def latent_scaling(
    codes: Codes,
    directions: Float[Tensor, "latent width"],
    *,
    base: Float[Tensor, "token width"],
    base_reconstruction: Float[Tensor, "token width"],
    tuned: Float[Tensor, "token width"],
    tuned_reconstruction: Float[Tensor, "token width"],
    base_bias: Float[Tensor, " width"] | None = None,
    tuned_bias: Float[Tensor, " width"] | None = None,
) -> Scaling:
    """Ratios of the latents' scales in the base and in the tuned model.

    Args:
        codes: of the tuned model's dictionary on the tuned model.
        directions: of that dictionary.
        base: the base model's activations on the same tokens.
        base_reconstruction: of these, by the base's dictionary.
        tuned: the tuned model's activations.
        tuned_reconstruction: by its own dictionary: `codes` decoded.
        base_bias: of the base's dictionary, part of its reconstruction; None is zero.
        tuned_bias: likewise.

    Raises:
        ShapeError: if the tokens or widths do not fit.
    """

    def scale(target: Tensor) -> Tensor:
        return ScalingSums.of(codes, directions, target).scale()

    own, other = (0.0 if bias is None else bias for bias in (tuned_bias, base_bias))
    # The fit of f_i d_i to itself has the scale 1: putting the latent back adds exactly that.
    tuned_error = scale(tuned - tuned_reconstruction) + 1
    return Scaling(
        error_ratio=scale(base - base_reconstruction) / tuned_error,
        reconstruction_ratio=scale(base_reconstruction - other) / scale(tuned_reconstruction - own),
    )
