"""Which latent of a dictionary is which planted feature."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.testbeds.planted.arms import PlantedPair

FOUND = 0.7
"""Least |Pearson correlation| of a latent with the feature it is (ours: half of the variance)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentLabels:
    """The planted feature that each latent is."""

    feature: Int[Tensor, " latent"]
    """Its number; -1 for a latent that is none."""
    correlation: Float[Tensor, " latent"]
    """|Pearson correlation| with that feature's values; NaN for none."""
    best: Float[Tensor, " feature"]
    """Each feature's largest |Pearson correlation| with any latent, found or not."""

    @property
    def labelled(self) -> Int[Tensor, " found"]:
        """The latents that are a planted feature."""
        return (self.feature >= 0).nonzero()[:, 0]

    def of_the_model(self, read: Bool[Tensor, " feature"]) -> Bool[Tensor, " found"]:
        """Of the labelled latents, which are features of a model that reads these features."""
        return read[self.feature[self.labelled]]


def label_latents(
    codes: Codes, pair: PlantedPair, activations: Float[Tensor, "token wide"]
) -> LatentLabels:
    """Match latents and planted features one to one, the most alike first.

    Args:
        codes: of some tokens, by the dictionary in question.
        pair: where the features were planted.
        activations: of the same tokens at the pair's site; the same in both arms.

    Raises:
        ShapeError: if codes and activations are not of as many tokens.
    """
    if codes.n_tokens != len(activations):
        raise ShapeError(
            f"Codes and activations must be of the same tokens; got {codes.n_tokens} and "
            f"{len(activations)}. Encode these activations."
        )
    sizes = _correlations(codes, pair.planted.values(activations)).abs().nan_to_num(nan=0.0)
    feature = torch.full((codes.width,), -1)
    correlation = torch.full((codes.width,), torch.nan)
    left = sizes.clone()
    while float(left.max()) > FOUND:
        latent, number = divmod(int(left.argmax()), left.shape[1])
        feature[latent], correlation[latent] = number, left[latent, number]
        left[latent], left[:, number] = 0, 0
    return LatentLabels(feature=feature, correlation=correlation, best=sizes.max(0).values)


def _correlations(
    codes: Codes, values: Float[Tensor, "token feature"]
) -> Float[Tensor, "latent feature"]:
    matrix, dense = codes.to_scipy().astype(np.float64), values.double().numpy()
    dense = dense - dense.mean(0)
    mean = np.asarray(matrix.mean(0)).ravel()
    variance = np.asarray(matrix.multiply(matrix).mean(0)).ravel() - mean**2
    covariance = torch.from_numpy(np.asarray(matrix.T @ dense) / len(dense))
    scale = np.sqrt(np.outer(variance.clip(min=0), dense.var(0)))
    return (covariance / torch.from_numpy(scale)).float()
