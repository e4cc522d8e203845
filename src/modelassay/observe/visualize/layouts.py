"""Activations laid out in two dimensions, so that what is alike lies near each other."""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import MissingExtraError, TooFewTokensError, UnknownNameError

Layout = Literal["pca", "umap"]
_NEIGHBOURS, _DISTANCE = 20, 0.01  # of lucid's notebook on the activation atlas
_EDGE = 0.01  # of the samples lie beyond each border and are moved onto it (ours)


def lay_out(
    activations: Float[Tensor, "sample channel"], layout: str, seed: int = 0
) -> Float[Tensor, "sample 2"]:
    """Two coordinates for each activation.

    pca: the two directions of largest variance, each divided by its deviation. umap: UMAP by
    cosine, 20 neighbours (McInnes et al. 2018), of the package umap-learn.

    Raises:
        MissingExtraError: for umap, if umap-learn is not installed.
        TooFewTokensError: with fewer than 4 activations, or if they vary in less than two ways.
        UnknownNameError: for another name.
    """
    if layout not in get_args(Layout):
        raise UnknownNameError("A layout", layout, get_args(Layout))
    if len(activations) < 4:
        raise TooFewTokensError(
            f"There must be at least 4 activations to lay out; got {len(activations)}. "
            "Add images, or sample more positions of each."
        )
    return _by_umap(activations, seed) if layout == "umap" else _by_variance(activations)


def _by_variance(activations: Tensor) -> Tensor:
    centred = activations.double() - activations.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    if len(values) < 2 or float(values[-2]) <= 1e-12 * float(values[-1]) or values[-1] <= 0:
        raise TooFewTokensError(
            "Activations must vary in two directions to be laid out; got "
            f"{int((values > 1e-12 * values[-1].clamp_min(1e-30)).sum())}. Use other images."
        )
    axes = vectors[:, -2:].flip(1)
    # The sign of an axis is arbitrary: the largest entry decides.
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    return (centred @ axes / values[-2:].flip(0).sqrt()).float()


def _by_umap(activations: Tensor, seed: int) -> Tensor:
    try:
        import umap  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingExtraError("umap-learn", "atlas") from error
    made: Any = umap.UMAP(
        n_components=2, n_neighbors=min(_NEIGHBOURS, len(activations) - 1), min_dist=_DISTANCE,
        metric="cosine", random_state=seed, n_jobs=1,
    )  # fmt: skip
    return torch.from_numpy(made.fit_transform(activations.numpy())).float()


def cells_of(points: Float[Tensor, "sample 2"], grid: int) -> Int[Tensor, " sample"]:
    """Each point's cell of a grid over the middle 98 % of each axis: row times `grid` plus column.

    The first coordinate runs to the right, the second upwards.
    """
    low, high = points.quantile(torch.tensor([_EDGE, 1 - _EDGE]), dim=0)
    share = (points - low) / (high - low).clamp_min(1e-12)
    column, row = (share * grid).long().clamp(0, grid - 1).T
    return (grid - 1 - row) * grid + column
