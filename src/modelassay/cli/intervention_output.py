"""Files of patching and steering: a page, or a picture by the file's ending."""

import math
from collections.abc import Callable
from pathlib import Path

from modelassay.core.errors import UnknownNameError
from modelassay.core.files import write_atomically
from modelassay.report.raster import write_png
from modelassay.report.report import Report

_ENDINGS = (".html", ".svg", ".png")


def check_ending(out: Path) -> None:
    """Before any work: can --out be written by its ending?

    Raises:
        UnknownNameError: another ending.
    """
    if out.suffix not in _ENDINGS:
        raise UnknownNameError("The ending of --out", out.suffix, _ENDINGS)


def write_result(out: Path, report: Report, picture: Callable[[], str], *, force: bool) -> None:
    """Write a page (.html) or a picture (.svg, .png).

    Raises:
        UnknownNameError: another ending.
        StorageError: the place cannot be written.
    """
    if out.suffix == ".html":
        report.write(out, force=force)
    elif out.suffix == ".svg":
        write_atomically(out, picture())
    else:
        check_ending(out)
        write_png(out, picture())


def quantity(value: float) -> float | None:
    """None for what was not measured."""
    return None if math.isnan(value) else value
