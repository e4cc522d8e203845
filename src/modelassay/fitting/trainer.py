"""The one trainer: several dictionaries on one pass over the activations."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import NonFiniteError
from modelassay.core.progress import Progress, Task
from modelassay.fitting.checkpoints import Checkpoint
from modelassay.fitting.distributed.processes import ONE_PROCESS, Processes
from modelassay.fitting.interruption import deferred_interruption
from modelassay.fitting.learner import Learner
from modelassay.fitting.logs import LogSink, Measurement
from modelassay.fitting.schedules import Schedule

LOOK_EVERY_STEPS = 25
"""Steps between two looks at the figures: the only moments at which the host waits for the
device, for the log, the census of dead latents and the test for NaN (ours)."""


SAVE_EVERY_SECONDS = 60.0
"""Wall-clock time between two checkpoints: bounds what a kill can cost (ours)."""


@runtime_checkable
class BatchStream(Protocol):
    """An endless stream of activations that can be taken up where it was left."""

    batch_tokens: int
    """Rows of every batch, those of other processes counted."""

    def __next__(self) -> Float[Tensor, "token width"]:
        """The next batch."""
        ...

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        ...

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointPlan:
    """Where a run saves its state."""

    directory: Path
    configuration: Mapping[str, Any]
    """What the run was asked to do; only an equal run may go on from the checkpoint."""


class Trainer:
    """Runs learners over a stream, step by step.

    Args:
        learners: they see the same batches and do not know each other.
        stream: of unscaled activations.
        scale: multiplies every activation.
        schedule: of the run.
        site: in words, for errors.
        device: where the learners' weights are.
        checkpoints: None to save nothing.
        logs: sinks of the measurements.
        processes: those that train together; each has a trainer.
        transform: applied to the scaled activations, if any.
    """

    def __init__(
        self,
        learners: Sequence[Learner],
        stream: BatchStream,
        *,
        scale: float,
        schedule: Schedule,
        site: str,
        device: torch.device,
        checkpoints: CheckpointPlan | None = None,
        logs: Sequence[LogSink] = (),
        processes: Processes = ONE_PROCESS,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.learners = tuple(learners)
        self.stream = stream
        self.scale = scale
        self.schedule = schedule
        self.site = site
        self.device = device
        self.checkpoints = checkpoints
        self.logs = tuple(logs)
        self.processes = processes
        self.transform = transform
        self.steps_done = 0
        # The first step whose batch was not finite, kept on the device; the last step if none was.
        self._first_bad_step = torch.full((), schedule.steps, device=device)
        self._saved_at = time.monotonic()

    def run(self, progress: Progress) -> None:
        """Train to the end of the schedule.

        Raises:
            NonFiniteError: if activations hold NaN or Inf, or a loss diverges.
            KeyboardInterrupt: on Ctrl-C, after a checkpoint of the last whole step.
            StorageError: if a checkpoint or log cannot be written.
        """
        names = ", ".join(learner.name for learner in self.learners)
        batch_tokens = self.stream.batch_tokens
        total = self.schedule.steps * batch_tokens
        with (
            deferred_interruption() as interruption,
            progress.task(f"Fitting {names}", total=total, unit="tokens") as task,
        ):
            task.advance(self.steps_done * batch_tokens)
            while self.steps_done < self.schedule.steps:
                self._step(task)
                looking = self.steps_done % LOOK_EVERY_STEPS == 0
                if self.processes.any_has_asked(interruption.requested, looking=looking):
                    self.save()
                    raise KeyboardInterrupt

    def _step(self, task: Task) -> None:
        step = self.steps_done
        x = self.scale * next(self.stream).to(self.device, torch.float32, non_blocking=True)
        if self.transform is not None:
            x = self.transform(x)
        bad_step = torch.where(x.sum().isfinite(), self.schedule.steps, step)
        self._first_bad_step = torch.minimum(self._first_bad_step, bad_step)
        results = [learner.step(x, step) for learner in self.learners]
        self.steps_done += 1
        is_last = self.steps_done == self.schedule.steps
        if self.steps_done % LOOK_EVERY_STEPS and not is_last:
            task.advance(self.stream.batch_tokens)
            return
        self._require_finite()
        rows = [
            learner.measure(*result, step)
            for learner, result in zip(self.learners, results, strict=True)
        ]
        for row in rows:
            if not math.isfinite(row.loss):
                raise NonFiniteError(
                    f"The loss of {row.dictionary} must be finite; got {row.loss} by step "
                    f"{row.step}. Lower the learning rate."
                )
        for learner, (_, forward) in zip(self.learners, results, strict=True):
            learner.census()
            learner.resample(forward, self.steps_done)
        for log in self.logs:
            log.write(rows)
        task.advance(self.stream.batch_tokens, **_headline(rows))
        if self.processes.any(is_last or time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS):
            self.save()

    def _require_finite(self) -> None:
        self.processes.least_(self._first_bad_step)
        bad_step = int(self._first_bad_step)
        if bad_step < self.schedule.steps:
            raise NonFiniteError(
                f"Activations must be finite; got NaN or Inf at {self.site} in the batch of step "
                f"{bad_step + 1}. Check the model's numbers, or harvest in float32."
            )

    def save(self) -> None:
        """Write a checkpoint of the present state, if the run keeps any.

        Raises:
            NonFiniteError: if a batch since the last look was not finite.
        """
        if self.checkpoints is None:
            return
        # Weights that have met NaN must not replace a good checkpoint.
        self._require_finite()
        tensors = {
            f"{learner.name}.{name}": tensor
            for learner in self.learners
            for name, tensor in learner.state().items()
        }
        checkpoint = Checkpoint(
            configuration=dict(self.checkpoints.configuration),
            step=self.steps_done,
            tensors=tensors,
            state={"stream": self.stream.state_dict()},
        )
        self.processes.write(self.checkpoints.directory, checkpoint)
        self._saved_at = time.monotonic()

    def load(self, checkpoint: Checkpoint) -> None:
        """Take up the state of a checkpoint."""
        for learner in self.learners:
            prefix = f"{learner.name}."
            learner.load_state(
                {
                    name.removeprefix(prefix): tensor
                    for name, tensor in checkpoint.tensors.items()
                    if name.startswith(prefix)
                }
            )
        self.stream.load_state_dict(checkpoint.state["stream"])
        self.steps_done = checkpoint.step


def _headline(rows: Sequence[Measurement]) -> dict[str, float]:
    """The figures beside the bar: the only dictionary's, or each one's explained variance."""
    if len(rows) > 1:
        return {row.dictionary: row.explained_variance for row in rows}
    (row,) = rows
    return {
        "loss": row.loss,
        "explained": row.explained_variance,
        "L0": row.l0,
        "dead": row.dead_share,
    }
