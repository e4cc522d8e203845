"""Is a plane of activations a circle, and is a rotation of it what it seems?

Engels and others call a feature of two dimensions irreducible if no rotation makes its two
coordinates independent and no line holds much of it::

    S = min over rotations of I(x'; y')          bits, of a 10 x 10 histogram from least to greatest
    M = max over (v, c) of P(|v . x + c| < epsilon * rms(v . x + c)),      epsilon = 0.1

A circle has a high S and a low M. That is a property of the activations: whether a model uses the
order of what lies on the circle is shown by turning it, see `turned`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError

REFERENCES = ("engels2024",)
SEPARABLE_BELOW = 0.5
"""A circle's S lies above it (calibrated on seven shapes; see the tests)."""
MIXED_ABOVE = 0.35
"""A circle's M lies below it."""
_ROUNDS = 3  # each narrows the best angles' neighbourhood by _FINER (ours)
_FINER = 5
_STARTS = 2  # angles of the grid that are narrowed down (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Irreducibility:
    """Engels' two indices of a cloud in a plane."""

    separability: float
    """S in bits; 0 for independent coordinates."""
    mixture: float
    """M in [0, 1]; the largest share of the points near one line."""

    @property
    def looks_circular(self) -> bool:
        """Whether neither index lets the cloud be taken apart."""
        return self.separability > SEPARABLE_BELOW and self.mixture < MIXED_ABOVE


def irreducibility(points: Float[Tensor, "point _"]) -> Irreducibility:
    """Both indices, with the published bins and epsilon.

    Raises:
        ShapeError: if the points are not in a plane, or fewer than two.
        NonFiniteError: if there is a NaN or an infinity.
        ValueRangeError: if all points are the same.
    """
    return Irreducibility(separability=separability(points), mixture=mixture(points))


def separability(
    points: Float[Tensor, "point _"], *, n_bins: int = 10, n_angles: int = 100
) -> float:
    """S: least mutual information, in bits, of the two coordinates over rotations.

    The histogram reaches from the least to the greatest value of each rotated coordinate, so the
    cloud's centre and scale do not matter. Mutual information has period a quarter turn; the
    angles cover the whole turn as published. Of N independent points it is about
    ``(n_bins - 1)^2 / (2 N ln 2)``, not 0.

    Args:
        points: the cloud, [point, 2].
        n_bins: of each coordinate.
        n_angles: equally spaced from 0 to a whole turn, both included.
    """
    points = _checked(points)
    angles = torch.linspace(0, 2 * math.pi, n_angles, dtype=torch.float64)
    return min(_mutual_information(points @ _rotation(float(a)), n_bins) for a in angles)


def _mutual_information(points: Tensor, n_bins: int) -> float:
    low, high = points.amin(0), points.amax(0)
    # A coordinate without extent falls into one bin.
    cells = ((points - low) / (high - low).clamp(min=1e-300) * n_bins).long().clamp(0, n_bins - 1)
    counts = torch.bincount(cells[:, 0] * n_bins + cells[:, 1], minlength=n_bins**2)
    joint = (counts.double() / len(points)).reshape(n_bins, n_bins)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    seen = joint > 0
    return float((joint[seen] * (joint[seen] / independent[seen]).log2()).sum())


def mixture(
    points: Float[Tensor, "point _"], *, epsilon: float = 0.1, n_angles: int = 180
) -> float:
    """M: the largest share of the points within epsilon * rms of a line.

    The published optimiser climbs a smoothed objective at random; this one is deterministic:
    exact in the offset c (point i is inside for c between the two roots of a quadratic, so the
    best c is where most intervals overlap), and a grid over the direction of v, narrowed down
    around its best angles.

    Args:
        points: the cloud, [point, 2].
        epsilon: half width of the strip, in root mean squares of ``v . x + c``.
        n_angles: of v, over half a turn.

    Raises:
        ValueRangeError: if epsilon is not between 0 and 1.
    """
    if not 0 < epsilon < 1:
        raise ValueRangeError(
            f"epsilon must be between 0 and 1; got {epsilon}. Pass the published 0.1."
        )
    points = _checked(points)
    step = math.pi / n_angles
    tried = {i * step: _share_in_strip(points, i * step, epsilon) for i in range(n_angles)}
    best = sorted(tried, key=lambda angle: -tried[angle])[:_STARTS]
    for _ in range(_ROUNDS):
        finer = step / _FINER
        near = [a + i * finer for a in best for i in range(-_FINER + 1, _FINER)]
        tried |= {a: _share_in_strip(points, a, epsilon) for a in near if a not in tried}
        best = sorted(near, key=lambda angle: -tried[angle])[:_STARTS]
        step = finer
    return max(tried.values())


def _share_in_strip(points: Tensor, angle: float, epsilon: float) -> float:
    """Most points of ``y = v . x`` with |y - u| < epsilon * sqrt(var + (u - mean)^2), over u."""
    y = points @ _rotation(angle)[:, 0]
    y = (y - y.mean()).sort().values
    # Both roots of the quadratic rise with y, so they need no sorting of their own.
    reach = epsilon * (y.square() + (1 - epsilon**2) * y.square().mean()).sqrt()
    starts, ends = ((y + sign * reach) / (1 - epsilon**2) for sign in (-1, 1))
    # The strips are open: an interval that ends where another begins does not overlap it.
    open_at = torch.arange(1, len(y) + 1) - torch.searchsorted(ends, starts, right=True)
    return float(open_at.max()) / len(y)


def _rotation(angle: float) -> Float[Tensor, "2 2"]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)


def _checked(points: Tensor) -> Float[Tensor, "point 2"]:
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise ShapeError(
            f"points must be [point, 2] with at least 2 points; got {list(points.shape)}. "
            "Project the activations onto a plane."
        )
    if not bool(points.isfinite().all()):
        raise NonFiniteError("points must be finite; got NaN or Inf. Look for an overflow.")
    if bool((points == points[0]).all()):
        raise ValueRangeError(
            f"points must differ; got {len(points)} copies of one. Take a plane that varies."
        )
    return points.double()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plane:
    """A plane in the activations, oriented so that the classes on it ascend counter-clockwise."""

    axes: Float[Tensor, "2 d"]
    """Orthonormal."""
    centre: Float[Tensor, " d"]

    def points(self, x: Float[Tensor, "token d"]) -> Float[Tensor, "token 2"]:
        """Coordinates in the plane, from its centre."""
        return (x - self.centre) @ self.axes.T

    def turned(self, x: Float[Tensor, "token d"], angle: float) -> Float[Tensor, "token d"]:
        """The activations with their part in the plane turned about the centre.

        Args:
            x: activations.
            angle: in radians, in the direction in which the classes ascend.
        """
        points = self.points(x)
        turn = _rotation(angle).to(points).T
        return x + (points @ turn - points) @ self.axes


def plane_of_classes(
    x: Float[Tensor, "token d"], classes: Int[Tensor, " token"], count: int
) -> Plane:
    """The two leading principal directions of the classes' means.

    Args:
        x: activations, or what a decomposition reconstructs of them.
        classes: of every token, from 0 to count - 1, in their cyclic order.
        count: of classes, at least 3.

    Raises:
        ValueRangeError: if a class has no token, or there are fewer than 3.
    """
    seen = torch.bincount(classes, minlength=count)
    if count < 3 or bool((seen == 0).any()):
        raise ValueRangeError(
            "A plane must be spanned by at least 3 classes with a token each; got "
            f"{count} classes, {int((seen == 0).sum())} of them empty. Pass more tokens."
        )
    means = x.new_zeros(count, x.shape[1]).index_add(0, classes, x) / seen[:, None]
    centre = means.mean(0)
    axes = torch.linalg.svd(means - centre, full_matrices=False).Vh[:2]
    points = ((means - centre) @ axes.T).double()
    step = torch.atan2(points[:, 1], points[:, 0]).roll(-1) - torch.atan2(
        points[:, 1], points[:, 0]
    )
    if float(step.sin().sum()) < 0:  # the classes descend: mirror the plane
        axes = axes * torch.tensor([[1.0], [-1.0]])
    return Plane(axes=axes, centre=centre)
