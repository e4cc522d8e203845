import sys
from pathlib import Path
from types import ModuleType

import pytest

from modelassay.core.errors import MissingExtraError
from modelassay.fitting.logs import Measurement
from modelassay.fitting.trackers import TensorBoardLog, WandbLog

ROW = Measurement(
    dictionary="a",
    step=5,
    tokens=320,
    loss=0.5,
    explained_variance=0.75,
    l0=4.0,
    dead_share=0.0,
    learning_rate=1e-3,
)


def test_missing_tensorboard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with pytest.raises(MissingExtraError, match=r"modelassay\[tensorboard\]"):
        TensorBoardLog(tmp_path)


def test_missing_wandb_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"modelassay\[wandb\]"):
        WandbLog("project")


def test_tensorboard_gets_each_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scalars: dict[str, tuple[float, int]] = {}

    class SummaryWriter:
        def __init__(self, directory: str) -> None:
            assert directory == str(tmp_path)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            scalars[name] = (value, step)

        def close(self) -> None:
            scalars["closed"] = (1, 0)

    module = ModuleType("torch.utils.tensorboard.writer")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", module)
    log = TensorBoardLog(tmp_path)
    log.write([ROW])
    log.close()
    assert scalars["a/explained_variance"] == (0.75, 5)
    assert scalars["a/tokens"] == (320, 5)
    assert "closed" in scalars


def test_wandb_gets_all_dictionaries_of_a_step_at_once(monkeypatch: pytest.MonkeyPatch):
    logged: list[tuple[dict[str, float], int]] = []

    class WandbRun:
        def log(self, figures: dict[str, float], step: int) -> None:
            logged.append((figures, step))

        def finish(self) -> None:
            logged.append(({}, -1))

    module = ModuleType("wandb")
    module.init = lambda project, **options: WandbRun()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    log = WandbLog("project", mode="offline")
    log.write([ROW, ROW])
    log.close()
    assert [step for _, step in logged] == [5, -1]
    assert logged[0][0]["a/l0"] == 4.0
