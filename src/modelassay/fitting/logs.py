"""What a run writes down while it trains, as CSV or as JSON lines."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from modelassay.core.errors import OutputExistsError, ValueRangeError
from modelassay.core.files import translate_os_errors, write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One dictionary's figures on the batch of one step, before that step's update."""

    dictionary: str
    """Name, unique within the run."""
    step: int
    """Steps done, this one included."""
    tokens: int
    """Tokens seen, this step's included."""
    loss: float
    """Sum of the objective's terms, in units of the data's variance."""
    explained_variance: float
    """1 - squared error / squared distance from the data's mean."""
    l0: float
    """Mean number of latents above zero per token."""
    dead_share: float
    """Share of the latents that have been silent for the whole dead window."""
    learning_rate: float
    skipped_rows: int = 0
    """Rows of the batches that were left out so far, because they were not finite."""


@runtime_checkable
class LogSink(Protocol):
    """Where measurements go."""

    def write(self, rows: Sequence[Measurement]) -> None:
        """Take the measurements of one step."""
        ...

    def close(self) -> None:
        """Flush and release what is held."""
        ...


class FileLog:
    """A text file with one line per measurement, flushed after each step.

    Args:
        path: a new file, or with `keep_until` the file of the run that goes on.
        keep_until: keep the lines up to this step and drop later ones, which a resumed run
            writes again; None begins a new file.

    Raises:
        OutputExistsError: if there is a file already and `keep_until` is None.
    """

    def __init__(self, path: str | Path, keep_until: int | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix not in _FORMATS:
            raise ValueRangeError(
                f"A log's name must end in {' or '.join(_FORMATS)}; got {self.path.name!r}. "
                "Rename it, or name a folder to have both."
            )
        self._format, self._read = _FORMATS[self.path.suffix]
        exists = self.path.exists()
        if exists and keep_until is None:
            raise OutputExistsError(
                f"A log must be a new file; got {str(self.path)!r}, which exists. "
                "Remove it, choose another name, or resume the run that wrote it."
            )
        kept: list[dict[str, Any]] = []
        if exists and keep_until is not None:
            rows = self._read(self.path.read_text("utf-8"))
            kept = [row for row in rows if int(row["step"]) <= keep_until]
        header = ",".join(_COLUMNS) + "\n" if self.path.suffix == ".csv" else ""
        write_atomically(self.path, header + "".join(self._format(row) for row in kept))
        with translate_os_errors(self.path):
            self._file = self.path.open("a", encoding="utf-8", newline="")

    def write(self, rows: Sequence[Measurement]) -> None:
        """Append one line per measurement."""
        with translate_os_errors(self.path):
            self._file.write("".join(self._format(asdict(row)) for row in rows))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_logs(path: str | Path, keep_until: int | None = None) -> list[FileLog]:
    """A `.csv` or `.jsonl` file, or both as `log.csv` and `log.jsonl` in a folder."""
    path = Path(path)
    names = [path] if path.suffix else [path / "log.csv", path / "log.jsonl"]
    return [FileLog(name, keep_until) for name in names]


_COLUMNS = [field.name for field in fields(Measurement)]


def _csv_line(row: dict[str, Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([row[name] for name in _COLUMNS])
    return line.getvalue()


def _csv_rows(text: str) -> list[dict[str, Any]]:
    # A kill may cut the last line short: a row without a last column is not a row.
    return [row for row in csv.DictReader(io.StringIO(text)) if row[_COLUMNS[-1]]]


def _json_line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _json_rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


_Formatter = Callable[[dict[str, Any]], str]
_Reader = Callable[[str], list[dict[str, Any]]]
_FORMATS: dict[str, tuple[_Formatter, _Reader]] = {
    ".csv": (_csv_line, _csv_rows),
    ".jsonl": (_json_line, _json_rows),
}
