"""The option of commands whose pages may join an audit's report."""

from pathlib import Path
from typing import Annotated

import typer

Join = Annotated[
    Path | None,
    typer.Option(
        "--join",
        help="Folder of an audit of the same model: the page is also kept there, and listed in "
        "its report.",
    ),
]
