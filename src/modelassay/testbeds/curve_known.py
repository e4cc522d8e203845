"""Numbers that are known about T1: what 500 tiles explain on the curve, and off it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from modelassay.core.randomness import derived
from modelassay.testbeds.curve_model import (
    Curve,
    blind_reader,
    curve_trunk,
    make_tiles,
    targets,
    tile_means,
)
from modelassay.testbeds.faithfulness import unexplained
from modelassay.testbeds.known import KnownNumber

DRAWS = 20
_ON, _OFF = 3_000, 2_000
_SOURCE = "own computation for a single draw of the kinks, whose seed is not recorded"
_TWO_DEVIATIONS = {
    # curve: expected FVU off the curve, and the tolerance: two standard deviations of one draw,
    # for the expected value stems from one draw, and the mean of 20 is compared with it
    (1, 1): (0.339, 0.15),
    (3, 2): (0.069, 0.013),
    (7, 5): (0.012, 0.011),
    (31, 29): (0.012, 0.004),
}
_LINEAR = (0.763, 0.29)  # on the circle, likewise


@dataclass(frozen=True, kw_only=True, slots=True)
class Unexplained:
    """FVU of (sin 3x, cos 4y + y), both outputs pooled, for one draw of the kinks."""

    tiles_on: float
    """Every activation of the curve has its tile's mean output."""
    tiles_off: float
    """x and y shuffled, every activation has the mean output of the tile nearest to it."""
    linear_on: float
    """Read-out fitted by least squares on the curve only, without a constant."""
    linear_off: float
    """The same read-out on shuffled x and y."""


def unexplained_by_tiles(curve: Curve, generator: torch.Generator) -> Unexplained:
    """One draw of the kinks, and what is unexplained.

    The tile of an activation is the one whose mean activation is nearest in the hidden space.
    """
    trunk = curve_trunk(generator)
    tiles = make_tiles(curve, trunk)
    on, off = curve.sample(_ON, generator), curve.shuffled(_OFF, generator)
    on_curve, off_curve = trunk(on), trunk(off)
    of_tile = tile_means(curve, targets)
    weight = torch.linalg.lstsq(on_curve.double(), targets(on).double(), driver="gelsd").solution
    return Unexplained(
        tiles_on=unexplained(of_tile[tiles.nearest(on_curve)], targets(on)),
        tiles_off=unexplained(of_tile[tiles.nearest(off_curve)], targets(off)),
        linear_on=unexplained(on_curve.double() @ weight, targets(on)),
        linear_off=unexplained(off_curve.double() @ weight, targets(off)),
    )


def unexplained_by_reads(curve: Curve, generator: torch.Generator) -> tuple[float, float]:
    """FVU on the curve and off it of the blind reader, fed the two scalars that it reads alone."""
    trunk = curve_trunk(generator)
    reader = blind_reader(trunk)
    onto_reads = torch.linalg.pinv(reader.weight) @ reader.weight
    on, off = (trunk(draw(_ON, generator)) for draw in (curve.sample, curve.shuffled))
    found = [unexplained(reader(rows @ onto_reads), reader(rows)) for rows in (on, off)]
    return found[0], found[1]


def known_numbers(curve: Curve, seed: int) -> Sequence[KnownNumber]:
    """Those of one curve, means over 20 draws of the kinks; 7:5 goes with 31:29."""
    found = list(_off_curve(curve, seed))
    if (curve.p, curve.q) == (31, 29):
        found += _off_curve(Curve(p=7, q=5), seed)
    return found


def _off_curve(curve: Curve, seed: int) -> Sequence[KnownNumber]:
    name = f"{curve.p}:{curve.q}"
    draws = [
        unexplained_by_tiles(curve, derived(seed, "T1", "known", name, draw))
        for draw in range(DRAWS)
    ]
    expected, tolerance = _TWO_DEVIATIONS[curve.p, curve.q]
    off = _number(
        f"{name}: FVU off the curve, 500 oracle tiles", expected, tolerance, draws, "tiles_off"
    )
    if (curve.p, curve.q) != (1, 1):
        return (off,)
    reads = unexplained_by_reads(curve, derived(seed, "T1", "known", "reads"))
    on = "circle: FVU on the curve"
    return (
        # Known as 1e-4, to one digit.
        _number(f"{on}, 500 oracle tiles", 1e-4, 5e-5, draws, "tiles_on"),
        off,
        *(
            KnownNumber(
                name=f"circle: FVU {where} the curve, the two read scalars",
                expected=0.0,
                tolerance=1e-6,
                measured=measured,
                source="exact: nothing else is read",
            )
            for where, measured in zip(("on", "off"), reads, strict=True)
        ),
        _number(
            "circle: FVU off the curve, read-out fitted on the curve alone",
            *_LINEAR,
            draws,
            "linear_off",
        ),
    )


def _number(
    name: str, expected: float, tolerance: float, draws: Sequence[Unexplained], field: str
) -> KnownNumber:
    return KnownNumber(
        name=name,
        expected=expected,
        tolerance=tolerance,
        measured=sum(getattr(draw, field) for draw in draws) / len(draws),
        source=_SOURCE,
    )
