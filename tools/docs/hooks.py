"""Fills the documentation's `<!-- made from code: … -->` lines while MkDocs builds.

A marker's words name a function below and its argument, so that a page cannot say what the code
does not: `<!-- made from code: command audit -->` becomes what `modelassay audit --help` prints.
"""

import re
from collections.abc import Callable

from typer.testing import CliRunner

from modelassay.audit.verdict import THRESHOLDS
from modelassay.cli.main import app

_MARKER = re.compile(r"<!-- made from code: (\w+) ?(\w*) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this with the text of each page."""
    return _MARKER.sub(lambda match: MAKERS[match[1]](match[2]), markdown)


def command_help(name: str) -> str:
    """What `modelassay NAME --help` prints."""
    arguments = [name, "--help"] if name else ["--help"]
    runner = CliRunner(env={"COLUMNS": "96", "TERMINAL_WIDTH": "96"})
    result = runner.invoke(app, arguments, prog_name="modelassay", catch_exceptions=False)
    return f"```text\n{result.stdout.strip()}\n```"


def thresholds(_: str) -> str:
    """The numbers that verdicts depend on."""
    rows = [f"| {t.name} | {t.value:g} | {t.reason} |" for t in THRESHOLDS]
    return "\n".join(["| threshold | value | reason |", "|---|---|---|", *rows])


MAKERS: dict[str, Callable[[str], str]] = {
    "command": command_help,
    "thresholds": thresholds,
}
