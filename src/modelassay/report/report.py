"""The report of an audit, to read in a browser or a terminal."""

from pathlib import Path
from typing import final

from modelassay.audit.result import Audit
from modelassay.core.errors import OutputExistsError
from modelassay.core.files import write_atomically
from modelassay.report import html, text
from modelassay.report.build import build
from modelassay.report.observation_parts import ObservationList
from modelassay.report.parts import Page


@final
class Report:
    """A page, and the ways to read it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def html(self) -> str:
        """One self-contained HTML file."""
        return html.render(self.page)

    def text(self) -> str:
        """A summary for a terminal."""
        return text.render(self.page)

    def write(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the HTML file: whole or not at all.

        Args:
            path: The file; its folder is made if need be.
            force: Overwrite a file that is there.

        Raises:
            OutputExistsError: if the file exists and `force` is False.
            StorageError: if the place cannot be written.
        """
        path = Path(path)
        if path.exists() and not force:
            raise OutputExistsError(
                f"The report must not overwrite a file; got {str(path)!r}, which exists. "
                "Pass force=True (--force), or choose another place."
            )
        write_atomically(path, self.html())
        return path


def report(audit: Audit, observations: ObservationList | None = None) -> Report:
    """The report of an audit, and of what was joined to it (`observations.observations_of`)."""
    return Report(build(audit, observations))
