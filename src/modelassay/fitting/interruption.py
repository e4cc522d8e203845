"""Ctrl-C between two steps, never inside one."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    """Whether somebody has asked for an end."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def deferred_interruption() -> Generator[Interruption]:
    """Note the first Ctrl-C instead of raising, so that a step is never left half done.

    The second Ctrl-C raises `KeyboardInterrupt` at once. Python delivers signals to the main
    thread only, so elsewhere there is nothing to defer.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def note(number: int, frame: FrameType | None) -> None:
        del number, frame
        if interruption.requested:
            raise KeyboardInterrupt
        interruption.requested = True

    # None stands for a handler that was not set from Python and cannot be put back.
    before = signal.signal(signal.SIGINT, note) or signal.SIG_DFL
    try:
        yield interruption
    finally:
        signal.signal(signal.SIGINT, before)
