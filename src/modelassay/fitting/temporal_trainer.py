"""Run a temporal learner over contexts: progress, logs, checkpoints, Ctrl-C."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modelassay.activations.context_stream import ContextStream
from modelassay.core.errors import NonFiniteError
from modelassay.core.progress import Progress, Task
from modelassay.fitting.checkpoints import Checkpoint, write_checkpoint
from modelassay.fitting.interruption import deferred_interruption
from modelassay.fitting.logs import LogSink
from modelassay.fitting.temporal_learner import TemporalLearner

LOOK_EVERY_STEPS = 25
"""Steps between two lines of the log (ours)."""
SAVE_EVERY_SECONDS = 60.0
"""Wall-clock time between two checkpoints (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalTrainer:
    """Steps a learner through its schedule."""

    learner: TemporalLearner
    stream: ContextStream
    scale: float
    """Multiplies every activation."""
    site: str
    """In words, for errors."""
    folder: Path | None
    """Of the checkpoint; None to save nothing."""
    configuration: Mapping[str, Any]
    """What the run was asked to do; only an equal run may go on from the checkpoint."""
    logs: Sequence[LogSink]

    def run(self, progress: Progress, found: Checkpoint | None) -> None:
        """Train to the end of the schedule.

        Args:
            progress: where to report.
            found: what to go on from.

        Raises:
            NonFiniteError: if activations hold NaN or Inf, or the loss diverges.
            KeyboardInterrupt: on Ctrl-C, after a checkpoint of the last whole step.
            StorageError: if a checkpoint or log cannot be written.
        """
        first = 0
        if found is not None:
            self.learner.load_state(found.tensors)
            self.stream.load_state_dict(found.state["stream"])
            first = found.step
        steps, saved_at = self.learner.schedule.steps, time.monotonic()
        title = f"Fitting {self.learner.dictionary.name}"
        with (
            deferred_interruption() as interruption,
            progress.task(title, total=steps, unit="steps") as task,
        ):
            task.advance(first)
            for step in range(first, steps):
                self._step(step, task)
                is_last = step + 1 == steps
                is_due = time.monotonic() - saved_at >= SAVE_EVERY_SECONDS
                if is_last or is_due or interruption.requested:
                    self._save(step + 1)
                    saved_at = time.monotonic()
                if interruption.requested:
                    raise KeyboardInterrupt

    def _step(self, step: int, task: Task) -> None:
        batch = next(self.stream)
        device = self.learner.mean.device
        scaled = self.scale * batch.activations.to(device, torch.float32)
        if not bool(scaled.isfinite().all()):
            raise NonFiniteError(
                f"Activations must be finite; got NaN or Inf at {self.site} in the batch of step "
                f"{step + 1}. Check the model's numbers, or harvest in float32."
            )
        forward = self.learner.step(scaled, batch.mask.to(device), step)
        if (step + 1) % LOOK_EVERY_STEPS and step + 1 < self.learner.schedule.steps:
            task.advance(1)
            return
        row = self.learner.measure(self.learner.dictionary.name, forward, step)
        if not math.isfinite(row.loss):
            raise NonFiniteError(
                f"The loss of {row.dictionary} must be finite; got {row.loss} by step {row.step}. "
                "Lower the learning rate."
            )
        for log in self.logs:
            log.write([row])
        task.advance(1, loss=row.loss, explained=row.explained_variance, dead=row.dead_share)

    def _save(self, step: int) -> None:
        if self.folder is None:
            return
        checkpoint = Checkpoint(
            configuration=dict(self.configuration),
            step=step,
            tensors=self.learner.state(),
            state={"stream": self.stream.state_dict()},
        )
        write_checkpoint(self.folder, checkpoint)
