"""LEACE: the smallest affine change of activations after which no linear probe finds a concept.

``r(x) = x - W^+ U U^T W (x - mean)`` with the whitening ``W = (Cov_xx^(1/2))^+`` and U the left
singular vectors of ``W Cov_xz``, z the labels one-hot. On the items whose moments it knows, r(x)
has no covariance with the labels, so that the best linear probe is a constant; and of all such
maps it moves the activations least.

Reference: Belrose et al. 2023, theorem 4.3.
"""

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError, TooFewTokensError

TOLERANCE = 0.01
"""Singular values below it are noise (the default of the authors' code). They are correlations."""
_RANK = 1e-10  # eigenvalues below this share of the largest belong to no direction (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Eraser:
    """The affine map ``x - left (right (x - mean))``."""

    mean: Float[Tensor, " width"]
    left: Float[Tensor, "width rank"]
    right: Float[Tensor, "rank width"]

    @property
    def rank(self) -> int:
        """Number of directions that are erased: at most the classes less one."""
        return self.left.shape[1]

    def __call__(self, activations: Float[Tensor, "*item width"]) -> Float[Tensor, "*item width"]:
        """Activations without the concept, in their own dtype. Serves as an edit of a site."""
        values = activations.double()
        mean, left, right = (part.to(values.device) for part in (self.mean, self.left, self.right))
        return (values - (values - mean) @ right.T @ left.T).to(activations.dtype)


@final
class ErasureMoments:
    """Means and covariances of activations and labels, batch by batch, in float64.

    Batches may come in any order and from any number of places (`merge`): nothing is kept of them.
    """

    def __init__(self, width: int, n_classes: int) -> None:
        self.n_items = 0
        self.n_classes = n_classes
        self._mean = torch.zeros(width + n_classes, dtype=torch.float64)
        self._products = torch.zeros(width, width + n_classes, dtype=torch.float64)

    @property
    def width(self) -> int:
        """Components of an activation."""
        return len(self._products)

    def update(
        self, activations: Float[Tensor, "item width"], labels: Int[Tensor, " item"]
    ) -> None:
        """Take a batch in.

        Raises:
            ShapeError: if the width is another.
            NonFiniteError: if an activation is NaN or infinite.
        """
        if activations.shape[1] != self.width:
            raise ShapeError(
                f"Activations must have {self.width} components; got {activations.shape[1]}. "
                "Start moments of their own for another site."
            )
        if not bool(activations.isfinite().all()):
            raise NonFiniteError(
                "Activations must be finite; got NaN or Inf. Leave these items out."
            )
        one_hot = torch.nn.functional.one_hot(labels.cpu(), self.n_classes)
        both = torch.cat([activations.cpu().double(), one_hot.double()], 1)
        batch = ErasureMoments(self.width, self.n_classes)
        batch.n_items, batch._mean = len(both), both.mean(0)
        centred = both - batch._mean
        batch._products = centred[:, : self.width].T @ centred
        self.merge(batch)

    def merge(self, other: "ErasureMoments") -> None:
        """Take in what other moments know (Chan, Golub & LeVeque 1979)."""
        if other.n_items == 0:
            return
        n_items = self.n_items + other.n_items
        apart = other._mean - self._mean
        moved = torch.outer(apart[: self.width], apart)
        self._products += other._products + moved * (self.n_items * other.n_items / n_items)
        self._mean += apart * (other.n_items / n_items)
        self.n_items = n_items

    def eraser(self, *, shrinkage: bool = False, tolerance: float = TOLERANCE) -> Eraser:
        """The eraser of what was taken in.

        Args:
            shrinkage: shrink the covariance towards a multiple of the identity, which helps on
                other items where these are few; on these items themselves the erasure is then no
                longer exact.
            tolerance: singular values below it are left alone.

        Raises:
            TooFewTokensError: if there are fewer than two items.
        """
        if self.n_items < 2:
            raise TooFewTokensError(
                f"An eraser needs at least two items; got {self.n_items}. Update its moments first."
            )
        covariance = self._products[:, : self.width] / self.n_items
        with_labels = self._products[:, self.width :] / self.n_items
        if shrinkage:
            covariance = shrunk_covariance(covariance, self.n_items)
        values, vectors = torch.linalg.eigh(covariance)
        kept = values > _RANK * values.max()
        roots, vectors = values[kept].sqrt(), vectors[:, kept]
        whitened = vectors / roots @ (vectors.T @ with_labels)
        left, sizes, _ = torch.linalg.svd(whitened, full_matrices=False)
        left = left[:, sizes > tolerance]
        return Eraser(
            mean=self._mean[: self.width].clone(),
            left=vectors * roots @ (vectors.T @ left),
            right=((left.T @ vectors) / roots) @ vectors.T,
        )


def fit_eraser(
    activations: Float[Tensor, "item width"],
    labels: Int[Tensor, " item"],
    *,
    n_classes: int = 2,
    shrinkage: bool = False,
) -> Eraser:
    """The eraser of labels from activations that lie in memory."""
    moments = ErasureMoments(activations.shape[1], n_classes)
    moments.update(activations, labels)
    return moments.eraser(shrinkage=shrinkage)


def shrunk_covariance(
    covariance: Float[Tensor, "width width"], n_items: int
) -> Float[Tensor, "width width"]:
    """``a S + b (tr S / p) I`` with the asymptotically optimal a and b.

    ``a = 1 - tr(S)^2 |T|^2 / n / (|S|^2 |T|^2 - tr(S T)^2)`` for the target ``T = tr(S)/p I``, and
    ``b = (1 - a) tr(S T) / |T|^2``; norms are Frobenius, a is kept between 0 and 1.

    Reference: Bodnar, Gupta & Parolya 2014.
    """
    width = len(covariance)
    trace = covariance.trace()
    target = torch.eye(width, dtype=covariance.dtype) * trace / width
    target_size = target.square().sum()
    overlap = (covariance * target).sum()
    spread = covariance.square().sum() * target_size - overlap.square()
    if spread <= 0:  # already a multiple of the identity
        return covariance
    keep = (1 - trace.square() * target_size / n_items / spread).clamp(0, 1)
    return keep * covariance + (1 - keep) * overlap / target_size * target
