"""Examples from a data set of latents, neurons, directions and probes, and of where they fail."""

from modelassay.observe.exemplars.of_codes import (
    Examples,
    Histogram,
    activation_histogram,
    find_examples,
    windows,
)

__all__ = ["Examples", "Histogram", "activation_histogram", "find_examples", "windows"]
