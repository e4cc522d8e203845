"""One broken part must not take the report with it."""

import logging
from collections.abc import Callable
from typing import TypeVar

from modelassay.report.parts import Broken

Made = TypeVar("Made")
_LOGGER = logging.getLogger(__name__)


def or_broken(title: str, make: Callable[[], Made]) -> Made | Broken:
    """What `make` returns, or a part that names the error that it raised."""
    try:
        return make()
    # A report is worth reading without the part that failed, whatever failed: the one place in
    # the project where every exception is caught. The reader sees it and the log has its trace.
    except Exception as error:
        _LOGGER.exception("The part %r of the report could not be made", title)
        return Broken(title=title, error=f"{type(error).__name__}: {error}")
