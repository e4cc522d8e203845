"""`modelassay cite`: the papers behind an audit or a method, as BibTeX."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.options import AsJson, Force, UnusedDevice, UnusedSeed, say
from modelassay.cli.schemas import SCHEMA_VERSION, CiteResult


def cite(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of audits or dictionaries, methods (topk, pca …), commands (lens, "
            "patch …), keys. Default: all.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write the BibTeX to this file as well.")] = None,
    force: Force = False,
    seed: UnusedSeed = 0,
    device: UnusedDevice = "cpu",
) -> None:
    """Print the papers behind an audit or a method, as BibTeX."""
    del seed, device
    from modelassay.cli.citations import keys_of
    from modelassay.cli.output import refuse_existing
    from modelassay.core.files import write_atomically
    from modelassay.core.references import REFERENCES, bibliography

    keys = keys_of(what or [])
    text = bibliography(keys)
    if out is not None:
        refuse_existing(out, force=force)
        write_atomically(out, text + "\n")
    result: CiteResult = {
        "schema_version": SCHEMA_VERSION,
        "references": [
            {"key": key, "title": REFERENCES[key].title, "bibtex": REFERENCES[key].bibtex}
            for key in keys
        ],
    }
    say(text, result, as_json=as_json)
