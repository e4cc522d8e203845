"""The loop itself: what it refuses, keeps and reports."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modelassay.core.errors import NonFiniteError
from modelassay.core.progress import SILENT
from modelassay.decompositions.recipes import TopK
from modelassay.fitting.checkpoints import has_checkpoint, read_checkpoint
from modelassay.fitting.learner import Learner
from modelassay.fitting.logs import Measurement
from modelassay.fitting.objectives.reconstruction import Reconstruction
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.sites import SiteGroup
from modelassay.fitting.trainer import LOOK_EVERY_STEPS, CheckpointPlan, Trainer
from modelassay.fitting.training import Training
from modelassay.fitting.weights import DataScale

D, WIDTH, TOKENS = 6, 16, 20


class Batches:
    """Random batches, with NaN in one of them."""

    batch_tokens = TOKENS

    def __init__(self, bad_batch: int | None = None) -> None:
        self.bad_batch = bad_batch
        self.batch = 0

    def __next__(self) -> Tensor:
        self.batch += 1
        x = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(self.batch))
        if self.batch == self.bad_batch:
            x[3, 2] = torch.nan
        return x

    def state_dict(self) -> dict[str, int]:
        return {"batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batch = state["batch"]


class Rows:
    """A log in memory."""

    def __init__(self) -> None:
        self.rows: list[Measurement] = []

    def write(self, rows: object) -> None:
        assert isinstance(rows, list)
        self.rows += rows

    def close(self) -> None:
        pass


def trainer_of(
    steps: int,
    batches: Batches,
    *,
    rate: float = 1e-2,
    directory: Path | None = None,
    log: Rows | None = None,
) -> Trainer:
    schedule = Schedule(steps=steps)
    mean = torch.zeros(D)
    learner = Learner(
        name="topk",
        dictionary=TopK(width=WIDTH, k=2).build(D, D, mean, torch.Generator().manual_seed(0), None),
        training=Training(objectives=(Reconstruction(),)),
        schedule=schedule,
        learning_rate=rate,
        dead_window=10_000,
        data=DataScale(mean=mean, total_variance=float(D)),
        workspace=torch.empty(4 * WIDTH),
    )
    return Trainer(
        [SiteGroup(site="resid_post.1", learners=(learner,), columns=slice(D))],
        batches,
        schedule=schedule,
        device=torch.device("cpu"),
        checkpoints=CheckpointPlan(directory=directory, configuration={}) if directory else None,
        logs=[log] if log else [],
    )


@pytest.mark.parametrize("bad_batch", [1, LOOK_EVERY_STEPS + 3, 2 * LOOK_EVERY_STEPS])
def test_nan_is_reported_with_its_step_and_site(bad_batch: int):
    trainer = trainer_of(60, Batches(bad_batch))
    with pytest.raises(NonFiniteError, match=f"resid_post.1 in the batch of step {bad_batch}"):
        trainer.run(SILENT)


def test_nan_never_reaches_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("modelassay.fitting.trainer.SAVE_EVERY_SECONDS", 0)
    with pytest.raises(NonFiniteError):
        trainer_of(90, Batches(LOOK_EVERY_STEPS + 3), directory=tmp_path).run(SILENT)
    checkpoint = read_checkpoint(tmp_path, {})
    assert checkpoint.step == LOOK_EVERY_STEPS
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())


def test_loss_that_diverges_is_reported(tmp_path: Path):
    trainer = trainer_of(50, Batches(), rate=1e30, directory=tmp_path)
    with pytest.raises(NonFiniteError, match=r"loss of topk must be finite.*learning rate"):
        trainer.run(SILENT)
    assert not has_checkpoint(tmp_path)


def test_figures_are_logged_at_each_look_and_at_the_end():
    log = Rows()
    trainer_of(2 * LOOK_EVERY_STEPS + 7, Batches(), log=log).run(SILENT)
    steps = [LOOK_EVERY_STEPS, 2 * LOOK_EVERY_STEPS, 2 * LOOK_EVERY_STEPS + 7]
    assert [row.step for row in log.rows] == steps
    assert [row.tokens for row in log.rows] == [step * TOKENS for step in steps]
    assert log.rows[-1].loss < log.rows[0].loss


def test_finished_run_that_is_loaded_does_no_more(tmp_path: Path):
    trainer_of(30, Batches(), directory=tmp_path).run(SILENT)
    again = trainer_of(30, Batches(), directory=tmp_path)
    again.load(read_checkpoint(tmp_path, {}))
    before = {name: tensor.clone() for name, tensor in again.learners[0].state().items()}
    again.run(SILENT)
    for name, tensor in again.learners[0].state().items():
        assert torch.equal(tensor, before[name])
