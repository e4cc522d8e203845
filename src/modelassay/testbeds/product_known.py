"""What is known about T3: code lengths, and how much random tables interact."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from scipy.stats import beta
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.testbeds.bits import code_lengths, crossover
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.product_readers import interaction_index

_TABLES = 4000  # random tables of the Monte Carlo (ours)
_SIGMAS = 4  # its half interval, in standard errors (ours)
_ONE_DRAW = 0.745  # index of one random 4x4 table that was reported beside the expectation
_BITS = {  # colours, shapes -> composed, product, with a reference, joint, the two index codes
    (2, 2): (3.245, 4.000, 2.000, 2.000, 2.0, 4.0),
    (4, 4): (5.397, 6.490, 4.868, 4.000, 4.0, 6.0),
    (10, 10): (8.079, 9.380, 8.442, 6.644, 6.6, 8.6),
}
_DERIVED = "derivation in the docstring of modelassay.testbeds.bits"


def known_numbers(
    colours: int, shapes: int, indices: Mapping[str, float], seed: int
) -> list[KnownNumber]:
    """The numbers of one world.

    Args:
        colours: n.
        shapes: m.
        indices: interaction index of the model in each arm.
        seed: of the random tables.
    """
    found = [
        KnownNumber(
            name=f"interaction index of the {arm} reader",
            expected=expected,
            tolerance=1e-6,
            measured=indices[arm],
            source="definition of the index: a sum has none, a parity nothing else",
        )
        for arm, expected in (("additive", 0.0), ("xor", 1.0))
    ]
    return found + _random_tables(colours, shapes, seed) + _bit_table(colours, shapes)


def _bit_table(colours: int, shapes: int) -> list[KnownNumber]:
    if (colours, shapes) not in _BITS:
        return []
    lengths = code_lengths(colours, shapes)
    measured = (
        ("composed, independent bits", lengths.composed, 5e-4),
        ("product, one-hot", lengths.product, 5e-4),
        ("product, one reference value in the bias", lengths.product_with_reference, 5e-4),
        ("joint entropy", lengths.joint, 5e-4),
        ("composed, index code", lengths.composed_index, 0.05),
        ("product, index code", lengths.product_index, 0.05),
    )
    found = [
        KnownNumber(
            name=f"bits per input: {name}",
            expected=expected,
            tolerance=tolerance,
            measured=value,
            source=_DERIVED,
        )
        for (name, value, tolerance), expected in zip(measured, _BITS[colours, shapes], strict=True)
    ]
    if (colours, shapes) == (10, 10):
        found.append(
            KnownNumber(
                name="inputs above which composed wins a two-part code (d = 50, 16 bits)",
                expected=49_000.0,
                tolerance=500.0,
                measured=crossover(colours, shapes, d=50, decoder_bits=16),
                source=_DERIVED,
            )
        )
    return found


def _random_tables(colours: int, shapes: int, seed: int) -> list[KnownNumber]:
    drawn = random_indices(colours, shapes, _TABLES, derived(seed, "T3", "tables"))
    expected = (colours - 1) * (shapes - 1) / (colours * shapes - 1)
    found = [
        KnownNumber(
            name=f"mean interaction index of {_TABLES} random tables",
            expected=expected,
            tolerance=_SIGMAS * float(drawn.std()) / _TABLES**0.5,
            measured=float(drawn.mean()),
            source="(n-1)(m-1)/(nm-1): degrees of freedom",
        )
    ]
    if (colours, shapes) == (4, 4):
        share = share_below(_ONE_DRAW, colours, shapes)
        found.append(
            KnownNumber(
                name=f"share of random 4x4 tables with an index below {_ONE_DRAW}",
                expected=share,
                tolerance=_SIGMAS * (share * (1 - share) / _TABLES) ** 0.5,
                measured=float((drawn < _ONE_DRAW).double().mean()),
                source="the index of normal entries is Beta((n-1)(m-1)/2, (n+m-2)/2)",
            )
        )
    return found


def random_indices(
    colours: int, shapes: int, count: int, generator: torch.Generator
) -> Float[Tensor, " {count}"]:
    """Interaction indices of random tables of one output."""
    tables = torch.randn(count, colours, shapes, 1, generator=generator)
    return torch.tensor([interaction_index(table) for table in tables])


def share_below(index: float, colours: int, shapes: int) -> float:
    """P(index of a table of independent normal entries < `index`), by Cochran's theorem."""
    interacting, additive = (colours - 1) * (shapes - 1), colours + shapes - 2
    return float(beta.cdf(index, interacting / 2, additive / 2))
