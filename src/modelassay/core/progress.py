"""Progress of long work: shown where somebody looks, silent where nobody does."""

import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress as RichBars,
    ProgressColumn,
    Task as RichTask,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Task(Protocol):
    """One piece of long work."""

    def advance(self, amount: int, **numbers: float) -> None:
        """`amount` more units are done; `numbers` are shown beside the bar."""
        ...


class Progress(Protocol):
    """What long-running functions report to."""

    def task(self, description: str, *, total: int, unit: str) -> AbstractContextManager[Task]:
        """Begin a piece of work of `total` units."""
        ...


class _SilentTask:
    def advance(self, amount: int, **numbers: float) -> None:
        del amount, numbers


class _SilentProgress:
    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator[_SilentTask]:
        del description, total, unit
        yield _SilentTask()


SILENT: Progress = _SilentProgress()
"""Reports nothing."""


class _RateColumn(ProgressColumn):
    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        rate = f"{speed:,.0f} {task.fields['unit']}/s" if speed else ""
        return Text(rate, style="cyan")


class _BarTask:
    def __init__(self, bars: RichBars, identifier: object) -> None:
        self._bars = bars
        self._identifier = identifier

    def advance(self, amount: int, **numbers: float) -> None:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        fields = {"numbers": shown} if shown else {}
        self._bars.update(self._identifier, advance=amount, **fields)  # type: ignore[arg-type]


class BarProgress:
    """Bars on stderr, drawn by rich; on a stream that is no terminal, one line per finished task."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator[_BarTask]:
        """A bar that is left standing when its work is done."""
        bars = RichBars(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            _RateColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[numbers]}"),
            console=self.console,
        )  # fmt: skip
        with bars:
            identifier = bars.add_task(description, total=total, unit=unit, numbers="")
            yield _BarTask(bars, identifier)


def default_progress() -> Progress:
    """Bars where stderr is a terminal, silence elsewhere."""
    return BarProgress() if sys.stderr.isatty() else SILENT
