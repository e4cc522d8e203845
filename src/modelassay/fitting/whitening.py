"""Training on whitened activations: every direction of the data counts alike."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from modelassay.activations.statistics import Moments
from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary

EIGENVALUE_FLOOR = 1e-3
"""Least eigenvalue of the covariance that is stretched to 1, as a share of the mean one. SAELens
has 1e-3 for activations of mean squared entry 1; relative, it fits all units (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Whitening:
    """``x' = (x - mean) P`` with P = C^(-1/2), symmetric, in float64.

    With the covariance's eigenvalues λ_i and eigenvectors u_i, ``P = sum_i max(λ_i, floor)^(-1/2)
    u_i u_i^T``: of all whitenings the one that moves the activations least. Directions below the
    floor keep a variance below 1, so that noise is not blown up.

    Reference: Kessy, Lewin, Strimmer 2018, "Optimal whitening and decorrelation", section 3 (ZCA).
    """

    mean: Float64[Tensor, " d"]
    matrix: Float64[Tensor, "d d"]
    """P."""
    inverse: Float64[Tensor, "d d"]
    """P^(-1)."""

    @staticmethod
    def of(moments: Moments, floor: float = EIGENVALUE_FLOOR) -> "Whitening":
        """The whitening of activations with the given moments.

        Raises:
            NonFiniteError: if there is a NaN or an infinity among them.
            ValueRangeError: if all activations are the same.
        """
        covariance = moments.covariance.double()
        if not bool(covariance.isfinite().all()):
            raise NonFiniteError(
                "Activations must be finite to be whitened; got a covariance with NaN or Inf. "
                "Look for an overflow in the model: run it in float32."
            )
        variances, directions = torch.linalg.eigh(covariance)
        mean_variance = float(variances.mean())
        if mean_variance <= 0:
            raise ValueRangeError(
                f"Activations must vary to be whitened; got a mean variance of {mean_variance}. "
                "Choose another site."
            )
        lengths = variances.clamp(min=floor * mean_variance).sqrt()
        return Whitening(
            mean=moments.mean.double(),
            matrix=(directions / lengths) @ directions.t(),
            inverse=(directions * lengths) @ directions.t(),
        )

    def moments(self, moments: Moments) -> Moments:
        """The moments of whitened activations, from those of the activations.

        The mean norm is not known from moments; its upper bound stands in, the root of the mean
        squared norm.
        """
        covariance = self.matrix @ moments.covariance.double() @ self.matrix
        return Moments(
            count=moments.count,
            mean=(moments.mean.double() - self.mean) @ self.matrix,
            covariance=covariance,
            mean_norm=math.sqrt(float(covariance.trace())),
        )

    def transform(
        self, device: torch.device | str = "cpu"
    ) -> Callable[[Float[Tensor, "token d"]], Float[Tensor, "token d"]]:
        """The whitening as a function of float32 activations on a device."""
        mean, matrix = (part.to(device, torch.float32) for part in (self.mean, self.matrix))
        return lambda x: (x - mean) @ matrix

    @torch.no_grad()
    def fold(self, dictionary: Dictionary) -> None:
        """Make a dictionary that was fitted on whitened activations one of the plain ones, exactly.

        ``W_enc <- P W_enc``, ``W_dec <- W_dec P^(-1)``, ``b_dec <- b_dec P^(-1) + mean``; an
        encoder that does not subtract `b_dec` has its bias lowered by ``mean W_enc``. Values and
        thresholds stay as they are. Directions get unit length again, and values their size, only
        where each latent is chosen on its own. Where latents are compared it would change which
        win: there a row keeps the length that its unit row has among the plain activations.

        Raises:
            ShapeError: if encoder and decoder do not both have the width of the mean.
            ValueRangeError: if it reads another site than it writes.
        """
        _check(dictionary, len(self.mean))
        # In float64: the matrix and its inverse may stretch by a factor of a thousand.
        device = dictionary.W_enc.device
        mean, matrix, inverse = (t.to(device) for t in (self.mean, self.matrix, self.inverse))
        dictionary.W_enc.copy_(matrix @ dictionary.W_enc.double())
        dictionary.W_dec.copy_(dictionary.W_dec.double() @ inverse)
        dictionary.b_dec.copy_(dictionary.b_dec.double() @ inverse + mean)
        if not dictionary.apply_b_dec_to_input:
            dictionary.b_enc.sub_(mean @ dictionary.W_enc.double())
        if not dictionary.activation.compares_latents:
            dictionary.fold_decoder_norms()


def _check(dictionary: Dictionary, width: int) -> None:
    """Refuse a dictionary that cannot have been fitted on whitened activations."""
    if not dictionary.d_in == dictionary.W_dec.shape[1] == width:
        raise ShapeError(
            f"A dictionary must read and write the width that was whitened, {width}; got "
            f"{dictionary.d_in} and {dictionary.W_dec.shape[1]}. Pass the site's own dictionary."
        )
    if dictionary.reads != dictionary.writes:
        raise ValueRangeError(
            "A whitened dictionary must write the site that it reads; got one that reads "
            f"{dictionary.reads} and writes {dictionary.writes}. Fit it on scaled activations."
        )
