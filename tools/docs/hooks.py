"""Fills the documentation's `<!-- made from code: … -->` lines while MkDocs builds.

A marker's words name a function below and its argument, so that a page cannot say what the code
does not: `<!-- made from code: command audit -->` becomes what `modelassay audit --help` prints.
"""

import ast
import inspect
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path

from typer.testing import CliRunner

import modelassay
from modelassay import cli
from modelassay.audit.verdict import THRESHOLDS
from modelassay.cli.main import app
from modelassay.testbeds.catalogue import TESTBEDS

_MARKER = re.compile(r"<!-- made from code: (\w+) ?([\w. ]*?) -->")


def on_page_markdown(markdown: str, **_: object) -> str:
    """MkDocs calls this with the text of each page."""
    return _MARKER.sub(lambda match: MAKERS[match[1]](match[2]), markdown)


def command_help(name: str) -> str:
    """What `modelassay NAME --help` prints."""
    arguments = [*name.split(), "--help"]
    runner = CliRunner(env={"COLUMNS": "96", "TERMINAL_WIDTH": "96"})
    result = runner.invoke(app, arguments, prog_name="modelassay", catch_exceptions=False)
    return f"```text\n{result.stdout.strip()}\n```"


def module_pages(layer: str) -> str:
    """The reference of every module of a layer, in alphabetical order."""
    package = import_module(f"modelassay.{layer}")
    found = pkgutil.walk_packages(package.__path__, prefix=f"{package.__name__}.")
    return "\n\n".join(f"::: {module.name}" for module in found if not module.ispkg)


def public_names(_: str) -> str:
    """The public table, each name with the first sentence of its docstring."""
    rows = ["| name | what it is |", "|---|---|"]
    for name, place in modelassay.PUBLIC.items():
        first = inspect.getdoc(getattr(modelassay, name)).partition("\n")[0]
        rows.append(f"| [`{name}`][{place.replace(':', '.')}] | {first} |")
    return "\n".join(rows)


def module_text(name: str) -> str:
    """A module's own docstring, without its first sentence."""
    return (inspect.getdoc(import_module(name)) or "").partition("\n\n")[2]


def json_objects(_: str) -> str:
    """Every object of the command line's modules of schemas, as a table of its keys."""
    sources = sorted(Path(cli.__path__[0]).glob("*schemas.py"))
    bodies = [ast.parse(source.read_text()).body for source in sources]
    classes = [node for body in bodies for node in body if isinstance(node, ast.ClassDef)]
    classes.sort(key=lambda node: not node.name.endswith("Result"))  # what is printed comes first
    known = {node.name for node in classes}
    return "\n\n".join(_json_object(node, known) for node in classes)


def _json_object(node: ast.ClassDef, known: set[str]) -> str:
    rows = ["| key | type | meaning |", "|---|---|---|"]
    for field, following in pairwise([*node.body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign):
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            meaning = " ".join(following.value.value.split()) if is_text else ""
            kind = ast.unparse(field.annotation).replace("|", "\\|")
            rows.append(f"| `{field.target.id}` | {_linked(kind, known)} | {meaning} |")
    bases = [base.id for base in node.bases if base.id in known]
    more = f" Has the keys of {_linked(bases[0], known)}, and:" if bases else ""
    return f"### {node.name}\n\n{ast.get_docstring(node)}{more}\n\n" + "\n".join(rows)


def _linked(kind: str, known: set[str]) -> str:
    """The type, with links to the objects that it names."""
    return re.sub(
        r"\b\w+\b", lambda m: f"[{m[0]}](#{m[0].lower()})" if m[0] in known else m[0], kind
    )


def thresholds(_: str) -> str:
    """The numbers that verdicts depend on."""
    rows = [f"| {t.name} | {t.value:g} | {t.reason} |" for t in THRESHOLDS]
    return "\n".join(["| threshold | value | reason |", "|---|---|---|", *rows])


def testbeds(_: str) -> str:
    """All testbeds, with what each claims."""
    rows = [f"| `{kind.name}` | {kind.title} | {kind.claim} |" for kind in TESTBEDS.values()]
    return "\n".join(["| name | what it is | what it claims |", "|---|---|---|", *rows])


MAKERS: dict[str, Callable[[str], str]] = {
    "command": command_help,
    "json": json_objects,
    "modules": module_pages,
    "text": module_text,
    "names": public_names,
    "testbeds": testbeds,
    "thresholds": thresholds,
}
