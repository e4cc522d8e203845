"""What a trainer is asked to do, the same for all libraries; needs only torch."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Job:
    """One dictionary to train."""

    trainer: str
    """A name of `TRAINERS`."""
    architecture: str
    d: int
    width: int
    k: int
    batch: int
    steps: int
    """Of the run that schedules and windows are made for; a benchmark may do fewer."""
    rate: float | None = None
    """Learning rate; None is the library's own."""
    seed: int = 0
    short_window: bool = False
    """Whether a latent is dead after a tenth of the run, as with us, and is then revived, instead
    of the library's own window, which a short run never reaches."""
    start_l0: bool = False
    """Whether k latents a token are active at the start, by thresholds or else by biases."""
    data: str | None = None
    """A safetensors file with ``fit`` and ``heldout`` rows; None draws normal ones."""
    distinct: int | None = None
    """How many of the file's rows are used, again and again; all if None."""

    @property
    def warmup_steps(self) -> int:
        """A twentieth of the run, at most a thousand."""
        return min(1000, self.steps // 20)

    @property
    def decay_steps(self) -> int:
        """A fifth of the run."""
        return self.steps // 5


class StepTrainer(Protocol):
    """A trainer that is given one batch after another."""

    def step(self, x: Tensor) -> None:
        """Learn from a batch of plain activations: scaling them is part of the step."""
        ...

    def codes_and_reconstruction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Dense codes of plain activations, and their reconstruction in the same units."""
        ...


TRAINERS = {
    "modelassay": "ours",
    "sae-lens": "saelens",
    "dictionary-learning": "dictionary_learning",
    "sparsify": "sparsify",
    "sparsify (signum)": "sparsify",
}
"""Trainer -> its module here."""


def threshold_for(pre: Tensor, k: int) -> float:
    """The value that k pre-activations a token exceed on average."""
    return float(pre.flatten().topk(k * len(pre)).values[-1])
