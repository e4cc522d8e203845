"""How the learning rate and the sparsity penalty change over a run."""

from dataclasses import dataclass

from modelassay.core.errors import ValueRangeError


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Linear warm-up, a plateau, and a linear decay to zero.

    Both factors multiply a base value and depend only on the step, so a resumed run needs
    nothing but its step number to go on exactly.
    """

    steps: int
    """Optimiser steps of the whole run."""
    warmup_steps: int = 1000
    """Steps until the full learning rate, in long runs (Gao et al. 2024; trainers since)."""
    warmup_share: float = 0.05
    """Share of the run that warm-up may take at most, so that short runs learn too (ours)."""
    decay_share: float = 0.2
    """Share of the run, at its end, over which the rate falls to zero."""
    sparsity_share: float = 0.1
    """Share of the run over which an L1 penalty grows to its full size: full strength from
    the first step kills latents before they have learnt anything."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueRangeError(
                f"A run must have at least one step; got {self.steps}. "
                "Train on more tokens, or use smaller batches."
            )

    def learning_rate_factor(self, step: int) -> float:
        """Factor of the learning rate in a step, counted from 0: never zero, at most one."""
        warmup = min(self.warmup_steps, self.warmup_share * self.steps)
        decay = self.decay_share * self.steps
        rise = (step + 1) / max(warmup, 1.0)
        fall = (self.steps - step) / max(decay, 1.0)
        return min(1.0, rise, fall)

    def sparsity_factor(self, step: int) -> float:
        """Factor of the sparsity penalty in a step, counted from 0."""
        return min(1.0, (step + 1) / max(self.sparsity_share * self.steps, 1.0))
