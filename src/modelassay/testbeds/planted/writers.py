"""The neurons that compute planted features.

For the normed input y = ρ x of the MLP, with ``c . y = κ ρ`` as the constant, feature p with
trigger r, threshold b, mean excess ε and ramp δ has two neurons, ``t(b) = k (r . y - b/κ c . y)``::

    s = w κρ [(share/δ + (1 - share)/ε) silu(t(b)) - share/δ silu(t(b + δ))]

With k so large that silu is relu, s is 0 below the threshold, rises over δ to a step, and grows
with the excess beyond it; a feature of a combination is the step alone. The unit of height is one
more neuron, always on, that is as high as a constant share of every step, at every token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import silu

from modelassay.testbeds.planted.calibration import Calibration
from modelassay.testbeds.planted.neurons import NeuronRows
from modelassay.testbeds.planted.plan import PlannedFeature
from modelassay.testbeds.planted.triggers import Triggers

SHARP = 40.0
"""Gate of a planted neuron at a typical value (ours): silu differs from relu by .28 at most."""
_RAMP = 0.3  # of the mean excess: over so much above its threshold a feature rises (ours)
_STEP = 0.6  # of a common feature's mean value that is step; the rest grows with the excess (ours)
_UNIT = 0.02  # of the residual stream's mean norm: the mean unit of height (ours)


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """The planted neurons of the block that computes the features, and what they compute."""

    rows: NeuronRows
    values: Float[Tensor, "token feature"]
    """s on the calibration tokens."""
    unit: Float[Tensor, " token"]
    """The unit of height on them."""
    fires: Bool[Tensor, "token feature"]
    """Where the trigger exceeds its threshold."""
    amplitudes: Float[Tensor, " feature"]
    """Mean of s where it fires."""
    heights: Float[Tensor, " feature"]
    """Height of the feature's whole step, in units of height; the same at every token."""


def write_features(
    bench: Calibration, layer: int, plan: Sequence[PlannedFeature], triggers: Triggers
) -> Written:
    """Neurons that write each feature along its direction, with the planned mean norm."""
    rho = bench.scale(layer)
    size = float(bench.post[layer].norm(dim=1).mean())
    excess, ramp = triggers.excess, _RAMP * triggers.excess
    sharp = SHARP / (excess * rho.mean())
    step = torch.tensor([1.0 if p.kind == "combination" else _STEP for p in plan])
    rising, falling = step / ramp + (1 - step) / excess, -step / ramp
    wide = triggers.directions @ bench.original

    def gates(thresholds: Tensor) -> Tensor:
        return sharp[:, None] * (wide - (thresholds / bench.height)[:, None] * bench.constant)

    first, second = gates(triggers.thresholds), gates(triggers.thresholds + ramp)
    normed = rho[:, None] * bench.mid[layer]
    constant = bench.height * rho
    shape = rising * silu(normed @ first.T) + falling * silu(normed @ second.T)
    shape = shape * constant[:, None]
    fires = normed @ first.T > 0
    amplitudes = size * torch.tensor([feature.amplitude for feature in plan])
    weight = amplitudes / ((shape * fires).sum(0) / fires.sum(0))
    steady = SHARP / float(constant.mean())
    height = silu(steady * constant) * constant
    unit_weight = _UNIT * size / float(height.mean())
    rows = NeuronRows(
        gate=torch.cat([first, second, steady * bench.constant[None]]),
        up=bench.constant.expand(2 * len(plan) + 1, -1),
        down=torch.cat(
            [
                (weight * rising)[:, None] * bench.directions,
                (weight * falling)[:, None] * bench.directions,
                unit_weight * bench.unit[None],
            ]
        ),
    )
    # Both are κρ times a relu that is proportional to ρ, so that their quotient is a constant.
    heights = weight * step * sharp / (unit_weight * steady * bench.height)
    return Written(
        rows=rows,
        values=weight * shape,
        unit=unit_weight * height,
        fires=fires,
        amplitudes=amplitudes,
        heights=heights,
    )
