"""What a report shows of the pages that were joined to it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservationEntry:
    """One page of another command, in a line."""

    title: str
    summary: str
    """What was found."""
    made: str
    """By which command, in which file, and when."""
    address: str
    """Where the page lies, relative to the report; empty if it is missing."""
    problem: str = ""
    """Why it cannot be read; empty if nothing is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ObservationList:
    """Pages that were joined to a report."""

    title: str
    entries: tuple[ObservationEntry, ...]
    caption: str
