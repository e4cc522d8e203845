"""Sizes of nested dictionaries that are drawn anew for every step."""

import torch

from modelassay.core.errors import ValueRangeError


def draw_prefixes(width: int, number: int, generator: torch.Generator) -> tuple[int, ...]:
    """Sizes of nested dictionaries, most of them small, the last one the width.

    All but the last are drawn independently with `P(m >= n) = n^(-1/2)` among 1 … width - 1 (what
    lies beyond is left out of the law), and may coincide.

    Args:
        width: number of latents.
        number: of sizes, the width among them.
        generator: of the CPU.

    Raises:
        ValueRangeError: if the width is less than 2 or the number less than 1.

    Reference:
        Nabeshima's matryoshka-saes, whose power this is (drawn there without repetition).
    """
    if width < 2 or number < 1:
        raise ValueRangeError(
            f"width must be at least 2 and number at least 1; got {width} and {number}. "
            "Use 10 prefixes of a wide dictionary."
        )
    smallest = width**-0.5
    # The inverse of the law; 1 - u lies in (0, 1], so no size is infinite.
    u = torch.rand(number - 1, generator=generator, dtype=torch.float64)
    survival = smallest + (1 - smallest) * (1 - u)
    sizes = survival.pow(-2).long().clamp(1, width - 1)
    return (*sizes.sort().values.tolist(), width)
