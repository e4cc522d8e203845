"""Code lengths of composed and of product dictionaries for one of n colours on one of m shapes.

Uniform and independent colours and shapes; with the binary entropy h, in bits per input::

    composed        nm h(1/nm)                      one latent per pair
    product         n h(1/n) + m h(1/m)             one latent per colour and per shape
    with reference  (n-1) h(1/n) + (m-1) h(1/m)     one colour and one shape stand in the bias
    joint           log2(nm)                        the entropy: no code is shorter
    index codes     log2(nm)  and  2 log2(n + m)    the numbers of the active latents

The first three code each latent on its own (Ayonrinde et al. 2024): which dictionary is shorter
depends on the code, and, once the dictionary itself must be sent, on the number of inputs.
"""

import math
from dataclasses import dataclass

from modelassay.core.errors import ValueRangeError


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeLengths:
    """Bits per input of one world in six codes."""

    composed: float
    product: float
    product_with_reference: float
    joint: float
    composed_index: float
    product_index: float


def binary_entropy(p: float) -> float:
    """``-p log2 p - (1-p) log2 (1-p)``, 0 at the ends.

    Raises:
        ValueRangeError: if p is no probability.
    """
    if not 0 <= p <= 1:
        raise ValueRangeError(f"p must be between 0 and 1; got {p}. Pass a probability.")
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def code_lengths(colours: int, shapes: int) -> CodeLengths:
    """The formulas of the module.

    Raises:
        ValueRangeError: if there are fewer than two colours or shapes.
    """
    if min(colours, shapes) < 2:
        raise ValueRangeError(
            f"There must be at least 2 colours and 2 shapes; got {colours} and {shapes}. "
            "With one of them nothing can be composed."
        )
    pairs = colours * shapes
    one_hot = {count: binary_entropy(1 / count) for count in (colours, shapes)}
    return CodeLengths(
        composed=pairs * binary_entropy(1 / pairs),
        product=colours * one_hot[colours] + shapes * one_hot[shapes],
        product_with_reference=(colours - 1) * one_hot[colours] + (shapes - 1) * one_hot[shapes],
        joint=math.log2(pairs),
        composed_index=math.log2(pairs),
        product_index=2 * math.log2(colours + shapes),
    )


def crossover(colours: int, shapes: int, *, d: int, decoder_bits: int) -> float:
    """Inputs above which composed latents pay for their larger dictionary.

    A two-part code sends N inputs and the dictionary: composed is shorter in all if
    ``N (product - composed) > (nm - n - m) d decoder_bits``.

    Args:
        colours: n.
        shapes: m.
        d: width of the activations.
        decoder_bits: per number of the dictionary.
    """
    lengths = code_lengths(colours, shapes)
    saved = lengths.product - lengths.composed
    more = (colours * shapes - colours - shapes) * d * decoder_bits
    return more / saved
