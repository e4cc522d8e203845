"""Progress of long work: shown where somebody looks, silent where nobody does."""

import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

from rich import progress as bars
from rich.console import Console
from rich.text import Text


@runtime_checkable
class Task(Protocol):
    """One piece of long work."""

    def advance(self, amount: int, **numbers: float) -> None:
        """`amount` more units are done; `numbers` are shown beside the bar."""
        ...

    def now(self, what: str) -> None:
        """Say beside the bar what is being worked on."""
        ...


@runtime_checkable
class Progress(Protocol):
    """What long-running functions report to."""

    def task(self, description: str, *, total: int, unit: str) -> AbstractContextManager[Task]:
        """Begin a piece of work of `total` units."""
        ...


class _SilentTask:
    def advance(self, amount: int, **numbers: float) -> None:
        del amount, numbers

    def now(self, what: str) -> None:
        del what


class _SilentProgress:
    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator[_SilentTask]:
        del description, total, unit
        yield _SilentTask()


SILENT: Progress = _SilentProgress()
"""Reports nothing."""


class _RateColumn(bars.ProgressColumn):
    def render(self, task: bars.Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        rate = ""
        if speed:
            rate = f"{speed:,.0f} {unit}/s" if speed > 1 else f"{1 / speed:,.0f} s/{unit}"
        return Text(rate, style="cyan")


class _BarTask:
    def __init__(self, display: bars.Progress, identifier: bars.TaskID) -> None:
        self._display = display
        self._identifier = identifier

    def advance(self, amount: int, **numbers: float) -> None:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        if shown:
            self._display.update(self._identifier, numbers=shown)
        self._display.advance(self._identifier, amount)

    def now(self, what: str) -> None:
        self._display.update(self._identifier, numbers=what)


class BarProgress:
    """Bars on stderr, drawn by rich; elsewhere than on a terminal, a line per finished task."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator[_BarTask]:
        """A bar that is left standing when its work is done."""
        display = bars.Progress(
            bars.TextColumn("{task.description:<34}"),
            bars.BarColumn(bar_width=24),
            bars.TextColumn("{task.percentage:>3.0f}%"),
            _RateColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("[dim]{task.fields[numbers]}"),
            console=self.console,
        )
        with display:
            identifier = display.add_task(description, total=total, unit=unit, numbers="")
            yield _BarTask(display, identifier)


def default_progress() -> Progress:
    """Bars where stderr is a terminal, silence elsewhere."""
    return BarProgress() if sys.stderr.isatty() else SILENT
