"""How much of a model's output survives a replacement, on the data and off it."""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm


def unexplained(
    replaced: Float[Tensor, "input output"], output: Float[Tensor, "input output"]
) -> float:
    """FVU of outputs: ``sum |replaced - output|^2 / sum |output - mean|^2``, all outputs pooled."""
    output = output.double()
    error = (replaced.double() - output).square().sum()
    return float(error / (output - output.mean(0)).square().sum())


def faithfulness(arm: Arm, decomposition: Decomposition, inputs: Tensor | None = None) -> float:
    """``clip(1 - FVU, 0, 1)`` of the arm's outputs with the reconstruction spliced in.

    Args:
        arm: whose model runs.
        decomposition: of its site.
        inputs: on which; the data if None.
    """
    fvu = unexplained(arm.output(decomposition, inputs), arm.output(None, inputs))
    return min(1.0, max(0.0, 1 - fvu))


def smallest_canonical_correlation(
    values: Float[Tensor, "input latent"], scalars: Float[Tensor, "input feature"]
) -> float:
    """Cosine of the largest angle between the spans of two sets of centred columns.

    1 if every combination of the features is one of the latents, 0 if one is uncorrelated with
    all; linearly dependent columns count once. Reference: Hotelling 1936.
    """
    one, other = (_orthonormal(columns.double()) for columns in (values, scalars))
    cosines = torch.linalg.svdvals(one.T @ other)
    if len(cosines) < other.shape[1]:
        return 0.0  # fewer latents than features
    return float(cosines[other.shape[1] - 1].clamp(0, 1))


def _orthonormal(columns: Tensor) -> Tensor:
    centred = columns - columns.mean(0)
    left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
    return left[:, sizes > 1e-6 * sizes.amax().clamp(min=1e-30)]
