"""The local interaction basis: directions sorted by how much the rest of the model uses them."""

from typing import final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ValueRangeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition, Parts
from modelassay.decompositions.dense_codes import dense_codes
from modelassay.decompositions.linear import HasMoments
from modelassay.subjects.site import Site

DEFAULT_THRESHOLD = 1e-5
"""The paper's, which compares absolute values; here it is relative to the largest (ours)."""


@final
class LocalInteractionBasis(Decomposition):
    """Codes ``z = (x - mean) C``, signed, sorted by the variance that the output uses of them.

    With the covariance G of the activations and the second moment M' of the rest's Jacobian,

        G = U D U^T,   R = U D^(-1/2),   R⁺ = D^(1/2) U^T      (whitening)
        R⁺ M' R⁺^T = V Λ V^T
        C = R V Λ^(1/2),   C⁺ = Λ^(-1/2) V^T R⁺.

    The columns of C are the covectors, the rows of C⁺ the directions. Then ``C⁺ C = 1``; the codes'
    covariance is diag Λ, the `used_variance`; and the Jacobian's second moment by the codes is the
    identity. A reconstruction keeps the span of the directions, and projects along what the
    covectors do not read: orthogonally in the metric of G⁻¹, obliquely in the plain one.

    A covector says what the model *reads*; its direction is the pattern ``G covector / Λ`` with
    which the activations move when it does. Where the model reads a single w, the covector is
    proportional to w, but for what of w does not vary, and the direction to G w.
    """

    references: tuple[str, ...] = ("bushnaq2024",)

    def __init__(
        self,
        mean: Float[Tensor, " d"],
        covectors: Float[Tensor, "latent d"],
        directions: Float[Tensor, "latent d"],
        used_variance: Float[Tensor, " latent"],
        *,
        threshold: float,
        site: Site | None = None,
    ) -> None:
        """Make a basis from what was computed already; see `from_moments`.

        Args:
            mean: subtracted before the projection.
            covectors: the columns of C.
            directions: the rows of C⁺.
            used_variance: Λ, descending.
            threshold: relative size under which variances were dropped.
            site: where the activations stand.
        """
        self._mean, self._covectors, self._directions = mean, covectors, directions
        self.used_variance = used_variance
        """Linear-order output variance that each latent carries."""
        self.threshold = threshold
        self.reads = self.writes = site
        self.name = f"local interaction basis {len(covectors)}"

    @staticmethod
    def from_moments(
        moments: HasMoments,
        jacobian_moment: Float64[Tensor, "d d"],
        *,
        threshold: float = DEFAULT_THRESHOLD,
        dtype: torch.dtype = torch.float32,
        site: Site | None = None,
    ) -> "LocalInteractionBasis":
        """The basis of activations with given moments, computed in float64.

        The covariance is centred, where the paper leaves the mean in as an option. The sign of a
        latent is free: the largest entry of its covector is made positive.

        Args:
            moments: mean and covariance of the activations.
            jacobian_moment: ``M' = E[sum_i (dy_i/dx) (dy_i/dx)^T]`` over the outputs y_i.
            threshold: principal variances and used variances below this share of the largest one
                are dropped.
            dtype: of the result.
            site: where the activations stand.

        Raises:
            ValueRangeError: the threshold is not between 0 and 1, the activations do not vary, or
                nothing that varies is used.
            NonFiniteError: a moment holds NaN or Inf.
        """
        check_threshold(threshold)
        _check_finite(moments.covariance, "activations")
        _check_finite(jacobian_moment, "gradients")
        variances, axes = _whitening(moments, threshold)
        inverse_whitening = axes * variances.sqrt()  # R⁺^T
        whitened = inverse_whitening.T @ jacobian_moment.double() @ inverse_whitening
        used, rotation = _descending(whitened)
        if not used[0] > 0:
            raise ValueRangeError(
                "The output must depend on activations that vary; got gradients of zero along all "
                "that do. Choose a site that the output depends on."
            )
        kept = used > threshold * used[0]
        used, rotation = used[kept], rotation[:, kept]
        covectors = ((axes / variances.sqrt()) @ rotation * used.sqrt()).T
        directions = (inverse_whitening @ rotation / used.sqrt()).T
        sign = covectors.gather(1, covectors.abs().argmax(1, keepdim=True)).sign()
        return LocalInteractionBasis(
            moments.mean.to(dtype),
            (covectors * sign).to(dtype).contiguous(),
            (directions * sign).to(dtype).contiguous(),
            used.to(dtype),
            threshold=threshold,
            site=site,
        )

    @property
    def width(self) -> int:
        """Number of latents."""
        return len(self._covectors)

    @property
    def d_in(self) -> int:
        """Width of the activations that it encodes."""
        return len(self._mean)

    @property
    def directions(self) -> Float[Tensor, "latent d_out"]:
        """The rows of C⁺: how the activations move with each code."""
        return self._directions

    @property
    def covectors(self) -> Float[Tensor, "latent d_in"]:
        """The columns of C: what each code reads."""
        return self._covectors

    @property
    def bias(self) -> Float[Tensor, " d_out"]:
        """The mean."""
        return self._mean

    def encode_rows(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """The centred activations, read by every covector."""
        return dense_codes((x - self._mean) @ self._covectors.t())

    def parts(self) -> Parts:
        """What `save` writes."""
        return Parts(
            kind="local_interaction",
            config={"threshold": self.threshold},
            tensors={
                "mean": self._mean,
                "covectors": self._covectors,
                "directions": self._directions,
                "used_variance": self.used_variance,
            },
        )


def check_threshold(threshold: float) -> None:
    """Refuse what is no relative size."""
    if not 0 < threshold < 1:
        raise ValueRangeError(
            f"threshold must be above 0 and below 1; got {threshold}. It is relative to the "
            f"largest variance: {DEFAULT_THRESHOLD} is usual."
        )


def _check_finite(moment: Tensor, what: str) -> None:
    if not bool(moment.isfinite().all()):
        raise NonFiniteError(
            f"The {what} must be finite; got NaN or Inf in their moments. "
            "Look for an overflow in the model: run it in float32 or float64."
        )


def _whitening(moments: HasMoments, threshold: float) -> tuple[Tensor, Tensor]:
    """D and U, without the principal directions that hardly vary."""
    variances, axes = _descending(moments.covariance)
    # Rounding leaves a constant column a variance of this size, relative to its square.
    rounding = torch.finfo(torch.float64).eps * float(moments.mean.double().square().max())
    if not variances[0] > rounding:
        raise ValueRangeError(
            "The activations must vary; got the same in every row. "
            "Give more inputs, or choose another site."
        )
    kept = variances > threshold * variances[0]
    return variances[kept], axes[:, kept]


def _descending(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(symmetric.double())
    return values.flip(0), vectors.flip(1)
