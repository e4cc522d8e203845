"""TensorBoard and Weights & Biases as logs, where they are installed."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modelassay.core.errors import MissingExtraError
from modelassay.fitting.logs import Measurement


class TensorBoardLog:
    """Writes one scalar per dictionary and figure to a TensorBoard folder."""

    def __init__(self, directory: str | Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self._writer = SummaryWriter(str(directory))

    def write(self, rows: Sequence[Measurement]) -> None:
        """Add the scalars of one step."""
        for row in rows:
            for name, value in _figures(row).items():
                self._writer.add_scalar(name, value, row.step)

    def close(self) -> None:
        """Flush and close the writer."""
        self._writer.close()


class WandbLog:
    """Logs to a Weights & Biases run."""

    def __init__(self, project: str, **options: Any) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb") from error
        self._run = wandb.init(project=project, **options)

    def write(self, rows: Sequence[Measurement]) -> None:
        """Log all dictionaries' figures of one step at once."""
        figures: dict[str, float] = {}
        for row in rows:
            figures |= _figures(row)
        self._run.log(figures, step=rows[0].step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def _figures(row: Measurement) -> dict[str, float]:
    numbers = asdict(row)
    return {
        f"{row.dictionary}/{name}": float(value)
        for name, value in numbers.items()
        if name not in ("dictionary", "step")
    }
