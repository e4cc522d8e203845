"""T1 drawn: the curve with its tiles, and what each method makes of g off the curve."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.curve_model import Curve, Tiles, tile_means
from modelassay.testbeds.picture import Marks, Picture

_SHOWN = 400  # inputs off the curve
_METHODS = ("pca", "topk", "relu_l1", "lib")  # that a picture of their own shows (ours)


def draw(
    curve: Curve, tiles: Tiles, arm: Arm, decompositions: Mapping[str, Decomposition]
) -> Sequence[Picture]:
    """The curve, then the read-out of g through the oracle's tiles and through some methods."""
    off = arm.interventional[:_SHOWN]
    of_tile = tile_means(curve, lambda inputs: arm.output(None, inputs))
    by_tile = of_tile[tiles.nearest(arm.interventional_activations[:_SHOWN]), 0]
    return [
        _curve(curve, tiles, arm),
        _read_out(arm, "500 oracle tiles", "activations", by_tile),
        *(
            _read_out(arm, name, "found", arm.output(decompositions[name], off)[:, 0])
            for name in _METHODS
            if name in decompositions
        ),
    ]


def _curve(curve: Curve, tiles: Tiles, arm: Arm) -> Picture:
    # As many points as keep the fastest coordinate smooth.
    line = curve.points(torch.linspace(0, 2 * torch.pi, 60 * max(curve.p, curve.q) + 1))
    middles, off = curve.points(tiles.t), arm.interventional[:_SHOWN]
    return Picture(
        title=f"The curve {curve.p}:{curve.q} and its {len(tiles.t)} tiles",
        caption=(
            "Data lie on the curve. Off it, x and y are shuffled: what is far from every tile has "
            "no tile of its own, and only a space-filling curve leaves no such place."
        ),
        x_title="x",
        y_title="y",
        marks=(
            Marks(kind="points", title="x and y shuffled", role="null", x=off[:, 0], y=off[:, 1]),
            Marks(kind="line", title="data", role="data", x=line[:, 0], y=line[:, 1]),
            Marks(
                kind="points",
                title="middles of the tiles",
                role="activations",
                x=middles[:, 0],
                y=middles[:, 1],
            ),
        ),
        equal=True,
    )


def _read_out(
    arm: Arm, name: str, role: Literal["activations", "found"], replaced: Tensor
) -> Picture:
    wanted = arm.output(None, arm.interventional[:_SHOWN])[:, 0]
    ends = torch.stack([wanted.amin(), wanted.amax()])
    return Picture(
        title=f"The {arm.name} arm's g(x) through {name}",
        caption=(
            "Where x and y are shuffled. On the diagonal the replacement does off the curve what "
            "the model does. Tiles are right on the curve only, unless it fills the square."
        ),
        x_title="g(x) of the model",
        y_title="g(x) with the replacement",
        marks=(
            Marks(kind="points", title=name, role=role, x=wanted, y=replaced),
            Marks(kind="line", title="the model", role="model", x=ends, y=ends),
        ),
    )
