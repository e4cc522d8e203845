"""The neurons that read planted features, in later blocks.

A feature that is read on its own has one neuron in its block, ``silu(k u . y) (c . y)``, and a pair
has two whose difference is a step where the sum of both, in heights of their steps, passes from
1.25 to 1.75: one of them alone gives 1, both give 2. Either writes along a direction drawn from the
covariance of the original stream there, which is what the later blocks and the unembedding read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import silu

from modelassay.core.randomness import derived
from modelassay.evidence.surrogate import random_directions
from modelassay.testbeds.planted.calibration import Calibration
from modelassay.testbeds.planted.neurons import NeuronRows
from modelassay.testbeds.planted.plan import PlannedFeature
from modelassay.testbeds.planted.writers import SHARP, Written

_BOTH = (1.25, 1.75)  # heights between which the reader of a pair rises (ours)


@dataclass(frozen=True, kw_only=True, eq=False)
class Readers:
    """The readers' neurons of one block."""

    rows: NeuronRows
    owners: Int[Tensor, " neuron"]
    """The feature that each neuron reads; of a pair, its first."""


def make_readers(
    bench: Calibration, plan: Sequence[PlannedFeature], written: Written, seed: int
) -> dict[int, Readers]:
    """Neurons that read each feature, or pair of features, with the planned gain.

    The gain is the mean norm of what they write over the feature's mean norm, where it fires; of a
    pair, where both fire.
    """
    made: dict[int, Readers] = {}
    added = written.values.square().sum(1) + written.unit.square()
    for block in sorted({feature.reader for feature in plan}):
        rho = bench.scale(block, added)
        original = bench.post[block] @ bench.original.T
        spread = torch.cov(original.T)
        parts: list[NeuronRows] = []
        owners: list[int] = []
        for number, feature in enumerate(plan):
            if feature.reader != block or -1 < feature.partner < number:
                continue
            drawn = random_directions(1, spread, derived(seed, "reader", number))
            part = _one(bench, plan, written, number, rho, drawn @ bench.original)
            parts.append(part)
            owners += [number] * len(part.gate)
        rows = NeuronRows(
            gate=torch.cat([part.gate for part in parts]),
            up=torch.cat([part.up for part in parts]),
            down=torch.cat([part.down for part in parts]),
        )
        made[block] = Readers(rows=rows, owners=torch.tensor(owners))
    return made


def _one(
    bench: Calibration,
    plan: Sequence[PlannedFeature],
    written: Written,
    number: int,
    rho: Float[Tensor, " token"],
    out: Float[Tensor, "1 wide"],
) -> NeuronRows:
    """The neurons that read one feature, or a pair by its first."""
    partner = plan[number].partner
    if partner < 0:
        amplitude = written.amplitudes[number]
        sharp = SHARP / (amplitude * rho.mean())
        gate = sharp * bench.directions[number][None]
        value = silu(sharp * written.values[:, number] * rho)
        on, signs = written.fires[:, number], torch.ones(1, 1)
    else:
        pair = [number, partner]
        amplitude = written.amplitudes[pair].mean()
        each = bench.directions[pair] / written.heights[pair][:, None]
        sharp = SHARP / ((_BOTH[1] - _BOTH[0]) * written.unit.mean() * rho.mean())
        gate = sharp * (each.sum(0) - torch.tensor(_BOTH)[:, None] * bench.unit)
        sums = (written.values[:, pair] / written.heights[pair]).sum(1)
        low, high = (sharp * (sums - each_of * written.unit) * rho for each_of in _BOTH)
        value = silu(low) - silu(high)
        on, signs = written.fires[:, pair].all(1), torch.tensor([[1.0], [-1.0]])
    size = (value * bench.height * rho)[on].mean()
    weight = plan[number].gain * amplitude / size
    return NeuronRows(gate=gate, up=bench.constant.expand(len(gate), -1), down=signs * weight * out)
