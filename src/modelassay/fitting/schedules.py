"""How the learning rate, the sparsity penalty and k change over a run."""

import math
from dataclasses import dataclass

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.fitting.options import ScheduleName, TrainingOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """Linear warm-up, a plateau, and a linear decay to zero, or another shape.

    All factors multiply a base value and depend only on the step, so a resumed run needs nothing
    but its step number to go on exactly.
    """

    steps: int
    """Optimiser steps of the whole run."""
    shape: ScheduleName = "linear"
    """Of the learning rate after its warm-up; see `TrainingOptions.schedule`."""
    warmup_steps: int = 1000
    """Steps until the full learning rate, in long runs (Gao et al. 2024; trainers since)."""
    warmup_share: float = 0.05
    """Share of the run that warm-up may take at most, so that short runs learn too (ours)."""
    decay_share: float = 0.2
    """Share of the run, at its end, over which a linear schedule falls to zero."""
    sparsity_share: float = 0.1
    """Share of the run over which a sparsity penalty grows to its full size: full strength from
    the first step kills latents before they have learnt anything."""
    initial_k: int | None = None
    """Active latents a token in the first step; None for the final number from the start."""
    k_share: float = 0.1
    """Share of the run over which k falls to the final number."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueRangeError(
                f"A run must have at least one step; got {self.steps}. "
                "Train on more tokens, or use smaller batches."
            )

    @staticmethod
    def of(steps: int, options: TrainingOptions) -> "Schedule":
        """The schedule of a run of some length under the given options."""
        return Schedule(
            steps=steps,
            shape=options.schedule,
            warmup_steps=options.warmup_steps,
            warmup_share=options.warmup_share,
            decay_share=options.decay_share,
            sparsity_share=options.sparsity_share,
            initial_k=options.initial_k,
            k_share=options.k_share,
        )

    def learning_rate_factor(self, step: int) -> float:
        """Factor of the learning rate in a step, counted from 0: never zero, at most one.

        With n steps and a warm-up of w: ``(step + 1) / w`` first; then 1 and at last ``(n - step)
        / (decay_share n)`` (linear), ``(1 + cos(π (step - w) / (n - w))) / 2`` (cosine), or 1.
        """
        warmup = min(float(self.warmup_steps), self.warmup_share * self.steps)
        rise = (step + 1) / max(warmup, 1.0)
        return min(1.0, rise, self._fall(step, warmup))

    def _fall(self, step: int, warmup: float) -> float:
        if self.shape == "linear":
            return (self.steps - step) / max(self.decay_share * self.steps, 1.0)
        if self.shape == "cosine" and step > warmup:
            return (1 + math.cos(math.pi * (step - warmup) / (self.steps - warmup))) / 2
        return 1.0

    def sparsity_factor(self, step: int) -> float:
        """Factor of the sparsity penalty in a step, counted from 0."""
        return min(1.0, (step + 1) / max(self.sparsity_share * self.steps, 1.0))

    def k(self, step: int, final: int) -> int:
        """Active latents a token in a step, counted from 0.

        ``final + round((initial - final) (1 - step / (k_share steps)))``, and `final` from then
        on: a linear fall, as in dictionary_learning and Llamascopium.
        """
        if self.initial_k is None:
            return final
        left = max(0.0, 1 - step / max(self.k_share * self.steps, 1.0))
        return final + round((self.initial_k - final) * left)

    def k_of(self, activation: Sparsifier, step: int) -> int | None:
        """Active latents a token that a sparsifier keeps in a step; None for its own number."""
        if self.initial_k is None:
            return None
        return self.k(step, activation.settings()["k"])

    def check_k(self, activation: Sparsifier, width: int) -> None:
        """Refuse a fall of k where there is no k that can vary, or a start beyond the width.

        Raises:
            ValueRangeError: if it cannot be kept.
        """
        if self.initial_k is None:
            return
        if not activation.varies_k:
            raise ValueRangeError(
                "initial_k must be None for a sparsifier whose k cannot vary; got "
                f"{self.initial_k} for {activation.label}. Leave it out, or fit another recipe."
            )
        if self.initial_k > width:
            raise ValueRangeError(
                f"initial_k must be at most the width, {width}; got {self.initial_k}. "
                "Use 2 to 10 times k."
            )
