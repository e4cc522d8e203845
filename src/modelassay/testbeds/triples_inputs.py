"""T9's dictionary and inputs: slots of active latents, which a trunk decodes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from modelassay.decompositions.recipes import unit_rows
from modelassay.testbeds.triples_codes import Planted

# Widths are the example's, the rest is ours.
_D, _WIDTH = 64, 1024
_ALPHAS = (0.5, 1.0, 3.0, -0.5)
_REPEATS = 2  # triples of each alpha
_MOST_ACTIVE = 8
_PLANTED = 0.5  # of the data have a member or a pair
_PAIR = 0.5  # of those a pair
_ON = (0.125, 0.5)  # interventional: how often each f1 and each f2 is on
_STRENGTH = (1.0, 4.0)  # and how strongly
_BACKGROUND = 2  # interventional: other latents


class SlotDecoder(nn.Module):
    """``x = sum over slots of value * direction``; inputs are [input, slot, (latent, value)]."""

    def __init__(self, directions: Float[Tensor, "latent d"]) -> None:
        super().__init__()
        self.directions = nn.Parameter(directions)

    def forward(self, inputs: Tensor) -> Tensor:
        """From slots to activations."""
        return functional.embedding_bag(
            inputs[..., 0].long(), self.directions, per_sample_weights=inputs[..., 1], mode="sum"
        )


def separate_planes(generator: torch.Generator) -> Planted:
    """Triples in planes orthogonal to each other and to all other directions."""
    alphas = torch.tensor(_ALPHAS).repeat(_REPEATS)
    count = len(alphas)
    axes = torch.linalg.qr(torch.randn(_D, _D, generator=generator))[0]
    cosines = (torch.randn(count, generator=generator) / _D**0.5)[:, None]  # as random pairs have
    first = axes[:count]
    second = cosines * first + (1 - cosines.square()).sqrt() * axes[count : 2 * count]
    third = functional.normalize(second - alphas[:, None] * first, dim=1)
    rest = unit_rows(_WIDTH - 3 * count, _D - 2 * count, generator) @ axes[2 * count :]
    return Planted(
        directions=torch.cat([first, second, third, rest]),
        members=torch.arange(3 * count).view(3, count).T.contiguous(),
        alphas=alphas,
    )


def data_inputs(
    planted: Planted, count: int, generator: torch.Generator
) -> Float[Tensor, "input slot 2"]:
    """Slots of 2 to 8 active latents; half of the inputs have a member or a pair of a triple."""
    active = torch.randint(2, _MOST_ACTIVE + 1, (count, 1), generator=generator)
    latents, values = _others(planted, count, _MOST_ACTIVE, generator)
    values = values * (torch.arange(_MOST_ACTIVE) < active)
    triples = torch.randint(len(planted.alphas), (count,), generator=generator)
    chance = torch.rand(count, 2, generator=generator)
    member = torch.randint(3, (count,), generator=generator)
    pair = chance[:, 1] < _PAIR
    first = torch.where(pair, 0, member)
    peaks = torch.where(first == 2, planted.norms[triples], 1.0)
    jitter = 1 + 0.05 * torch.randn(count, 2, generator=generator)
    chosen = planted.members[triples]
    has, has_pair = chance[:, 0] < _PLANTED, (chance[:, 0] < _PLANTED) & pair
    latents[has, 0] = chosen.gather(1, first[:, None])[has, 0]
    values[has, 0] = (peaks * jitter[:, 0])[has]
    latents[has_pair, 1] = chosen[has_pair, 1]
    values[has_pair, 1] = jitter[has_pair, 1]
    return torch.stack([latents.float(), values], 2)


def interventional_inputs(
    planted: Planted, count: int, generator: torch.Generator
) -> Float[Tensor, "input slot 2"]:
    """Every f1 and every f2 on independently, f2 more often and more strongly; two others."""
    members = planted.members[:, :2].T.flatten()
    shape = (count, len(members))
    strength = 0.5 + torch.rand(shape, generator=generator)
    louder, often = (
        torch.tensor(pair).repeat_interleave(len(planted.alphas)) for pair in (_STRENGTH, _ON)
    )
    values = louder * strength * (torch.rand(shape, generator=generator) < often)
    others, other_values = _others(planted, count, _BACKGROUND, generator)
    latents = torch.cat([members.expand(shape), others], 1)
    return torch.stack([latents.float(), torch.cat([values, other_values], 1)], 2)


def _others(
    planted: Planted, count: int, slots: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    start = planted.members.numel()
    latents = torch.randint(start, len(planted.directions), (count, slots), generator=generator)
    return latents, 0.5 + torch.rand(count, slots, generator=generator)
