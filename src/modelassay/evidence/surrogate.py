"""Noise with the data's own mean and covariance: activations without any further structure."""

from functools import reduce
from operator import add

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.statistics import Moments


def covariance_root(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric square root; eigenvalues that rounding made negative count as 0."""
    values, vectors = torch.linalg.eigh(covariance.double())
    return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).to(covariance.dtype)


def gaussian_surrogate(
    x: Float[Tensor, "token d"], generator: torch.Generator
) -> Float[Tensor, "token d"]:
    """As many tokens of Gaussian noise with the mean and the covariance of `x`, in float32.

    Whatever a decomposition scores on it, it owes to second-order structure alone.
    """
    moments = reduce(add, map(Moments.of, x.split(16_384)))
    noise = torch.randn(x.shape, generator=generator)
    return moments.mean.float() + noise @ covariance_root(moments.covariance).float()


def random_directions(
    count: int, covariance: Float[Tensor, "d d"], generator: torch.Generator
) -> Float[Tensor, "count d"]:
    """Unit directions of Gaussian vectors with a covariance: where the data vary, they point more.

    This is the mixture over data statistics that Lee & Heimersheim 2024 (arXiv 2410.12555) found to
    be the fair control; the current activation is not subtracted.
    """
    noise = torch.randn(count, len(covariance), generator=generator)
    return torch.nn.functional.normalize(noise @ covariance_root(covariance).float(), dim=1)
