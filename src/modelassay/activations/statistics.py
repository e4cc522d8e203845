"""Mean, covariance and norms of activations, from one pass in pieces of any size."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from modelassay.core.errors import ShapeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """The first two moments of some rows, in float64; two of them add up to that of all rows.

    With n rows x: mean = sum x / n and covariance = sum (x - mean)(x - mean)^T / n. They are kept
    centred, because E[x x^T] - mean mean^T cancels where the mean is large.
    """

    count: int
    """Rows seen."""
    mean: Float64[Tensor, " width"]
    covariance: Float64[Tensor, "width width"]
    """Divided by the count, not by count - 1."""
    mean_norm: float
    """Mean Euclidean norm of a row."""

    @staticmethod
    def zero(width: int) -> "Moments":
        """The moments of no rows: the neutral element of `+`."""
        return Moments(
            count=0,
            mean=torch.zeros(width, dtype=torch.float64),
            covariance=torch.zeros(width, width, dtype=torch.float64),
            mean_norm=0.0,
        )

    @staticmethod
    def of(rows: Float[Tensor, "token width"]) -> "Moments":
        """The moments of the given rows."""
        if len(rows) == 0:
            return Moments.zero(rows.shape[1])
        rows = rows.to("cpu", torch.float64)
        mean = rows.mean(0)
        centred = rows - mean
        return Moments(
            count=len(rows),
            mean=mean,
            covariance=centred.T @ centred / len(rows),
            mean_norm=float(rows.norm(dim=1).mean()),
        )

    @staticmethod
    def of_finite(rows: Float[Tensor, "token width"]) -> "Moments":
        """The moments of the given rows, those with NaN or Inf left out."""
        return Moments.of(rows[rows.isfinite().all(1)])

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together.

        With shares p + q = 1 of the rows and d the difference of the means, the covariance is
        p C_1 + q C_2 + p q d d^T.

        Reference: Chan, Golub, LeVeque (1979), "Updating formulae and a pairwise algorithm for
        computing sample variances", eq. 2.1.
        """
        if len(self.mean) != len(other.mean):
            raise ShapeError(
                f"Moments that are added must have one width; got {len(self.mean)} and "
                f"{len(other.mean)}. Add moments of the same site."
            )
        if self.count == 0 or other.count == 0:
            return self if other.count == 0 else other
        count = self.count + other.count
        p, q = self.count / count, other.count / count
        difference = other.mean - self.mean
        return Moments(
            count=count,
            mean=self.mean + q * difference,
            covariance=p * self.covariance
            + q * other.covariance
            + p * q * torch.outer(difference, difference),
            mean_norm=p * self.mean_norm + q * other.mean_norm,
        )

    @property
    def mean_squared_norm(self) -> float:
        """Mean squared norm of a row: trace of the covariance + squared norm of the mean."""
        return float(self.covariance.trace() + self.mean @ self.mean)
