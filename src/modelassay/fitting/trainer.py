"""The one trainer: several dictionaries on one pass over the activations."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelassay.activations.stream import BatchStream
from modelassay.core.errors import CorruptFileError, NonFiniteError
from modelassay.core.progress import Progress, Task
from modelassay.fitting.bad_batches import CheckedBatches
from modelassay.fitting.checkpoints import Checkpoint
from modelassay.fitting.distributed.processes import ONE_PROCESS, Processes
from modelassay.fitting.interruption import deferred_interruption
from modelassay.fitting.learner import Learner
from modelassay.fitting.logs import LogSink, Measurement
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.sites import SiteGroup

LOOK_EVERY_STEPS = 25
"""Steps between two looks at the figures: the only moments at which the host waits for the
device, for the log, the census of dead latents and the test for NaN (ours)."""


SAVE_EVERY_SECONDS = 60.0
"""Wall-clock time between two checkpoints: bounds what a kill can cost (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointPlan:
    """Where a run saves its state."""

    directory: Path
    configuration: Mapping[str, Any]
    """What the run was asked to do; only an equal run may go on from the checkpoint."""


class Trainer:
    """Runs learners over a stream, step by step.

    Args:
        groups: the learners of each site.
        stream: of unscaled activations; those of several sites stand side by side.
        schedule: of the run.
        device: where the learners' weights are.
        checkpoints: None to save nothing.
        logs: sinks of the measurements.
        processes: those that train together; each has a trainer.
        checked: what the stream is made of, if it knows of bad batches.
    """

    def __init__(
        self,
        groups: Sequence[SiteGroup],
        stream: BatchStream,
        *,
        schedule: Schedule,
        device: torch.device,
        checkpoints: CheckpointPlan | None = None,
        logs: Sequence[LogSink] = (),
        processes: Processes = ONE_PROCESS,
        checked: CheckedBatches | None = None,
    ) -> None:
        self.groups = tuple(groups)
        self.learners = tuple(learner for group in groups for learner in group.learners)
        self.stream = stream
        self.schedule = schedule
        self.device = device
        self.checkpoints = checkpoints
        self.logs = tuple(logs)
        self.processes = processes
        self.checked = checked
        self.steps_done = 0
        # For each site, the first step whose batch was not finite, kept on the device; the number
        # of steps if none was.
        self._first_bad_steps = torch.full((len(self.groups),), schedule.steps, device=device)
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
        rows = next(self.stream).to(self.device, torch.float32, non_blocking=True)
        seen = [group.view(rows) for group in self.groups]
        finite = torch.stack([x.sum().isfinite() for x in seen])
        bad_steps = torch.where(finite, self.schedule.steps, step)
        self._first_bad_steps = torch.minimum(self._first_bad_steps, bad_steps)
        results = [
            learner.step(x, step)
            for group, x in zip(self.groups, seen, strict=True)
            for learner in group.learners
        ]
        self.steps_done += 1
        is_last = self.steps_done == self.schedule.steps
        if self.steps_done % LOOK_EVERY_STEPS and not is_last:
            task.advance(self.stream.batch_tokens)
            return
        self._require_finite()
        skipped = self.checked.skipped_rows if self.checked else 0
        figures = [
            replace(learner.measure(*result, step), skipped_rows=skipped)
            for learner, result in zip(self.learners, results, strict=True)
        ]
        for row in figures:
            if not math.isfinite(row.loss):
                raise NonFiniteError(
                    f"The loss of {row.dictionary} must be finite; got {row.loss} by step "
                    f"{row.step}. Lower the learning rate."
                )
        for learner, (_, forward) in zip(self.learners, results, strict=True):
            learner.census()
            learner.resample(forward, self.steps_done)
        for log in self.logs:
            log.write(figures)
        task.advance(self.stream.batch_tokens, **_headline(figures))
        if self.processes.any(is_last or time.monotonic() - self._saved_at >= SAVE_EVERY_SECONDS):
            self.save()

    def _require_finite(self) -> None:
        self.processes.least_(self._first_bad_steps)
        step = int(self._first_bad_steps.min())
        if step == self.schedule.steps:
            return
        places = self.checked.places(step) if self.checked else {}
        # Scaled numbers may overflow where those of the batch did not.
        bad = zip(self.groups, self._first_bad_steps.tolist(), strict=True)
        sites = [group.site for group, first in bad if first == step]
        found = [f"{site} ({places[site]})" if site in places else site for site in sites]
        raise NonFiniteError(
            f"Activations must be finite; got NaN or Inf at {', '.join(found)} in the batch of "
            f"step {step + 1}. Check the model's numbers, harvest in float32, or pass "
            'bad_batches="skip".'
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
            f"{_key(learner)}{name}": tensor
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
        """Take up the state of a checkpoint.

        Raises:
            CorruptFileError: if it lacks a tensor, or one has another shape.
        """
        for learner in self.learners:
            prefix = _key(learner)
            found = {
                name.removeprefix(prefix): tensor
                for name, tensor in checkpoint.tensors.items()
                if name.startswith(prefix)
            }
            self._require_state(learner, found)
            learner.load_state(found)
        self.stream.load_state_dict(checkpoint.state["stream"])
        self.steps_done = checkpoint.step

    def _require_state(self, learner: Learner, found: Mapping[str, Tensor]) -> None:
        """Refuse what is no state of a learner, before it changes anything."""
        for name, tensor in learner.state().items():
            expected = list(tensor.shape)
            got = list(found[name].shape) if name in found else "no such tensor"
            # How many latents are dead differs from step to step.
            if got != expected and (name != "dead" or name not in found):
                where = self.checkpoints.directory if self.checkpoints else "memory"
                raise CorruptFileError(
                    f"{_key(learner)}{name} in the checkpoint in {str(where)!r} must have the "
                    f"shape {expected}; got {got}. Restore it from a copy, or begin again."
                )


def _key(learner: Learner) -> str:
    """What the names of a learner's tensors begin with; words of it are no words of a name."""
    return learner.name.replace(".", "%2E") + "."


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
