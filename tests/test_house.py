"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modelassay as ma
from modelassay.core.references import REFERENCES

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MAX_BYTES = 24_000  # some 600 lines: what composes everything grows, and has to be split by stage


def tracked_text_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("no git work tree here: nothing says which files belong to the project")
    kinds = {".py", ".md", ".toml", ".yml", ".cff", ".txt", ".html", ".js", ".css", ""}
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.suffix in kinds and path.is_file()]


def test_layers_point_down():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_files_stay_small():
    big = {str(path): size for path in SOURCES if (size := path.stat().st_size) > MAX_BYTES}
    assert not big


def test_public_names_are_documented_with_a_sentence():
    bare = [name for name in ma.PUBLIC if not (getattr(ma, name).__doc__ or "").strip()]
    assert not bare


def test_every_layer_with_a_public_name_has_a_page():
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs" / "api").glob("*.md"))
    documented = set(re.findall(r"<!-- made from code: modules (\w+) -->", pages))
    assert {place.split(".")[1] for place in ma.PUBLIC.values()} <= documented


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    docs = ROOT / "docs"
    pages = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")}
    assert {page for page in pages if page not in navigation} == set()


def test_every_package_says_what_it_is_for():
    inits = [path for path in SOURCES if path.name == "__init__.py"]
    assert not [
        str(path) for path in inits if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ]


def test_imports_stand_at_the_top_except_in_the_command_line():
    offenders = []
    for path in SOURCES:
        if "cli" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
                names = [
                    n.module or "" if isinstance(n, ast.ImportFrom) else n.names[0].name
                    for n in inner
                ]
                offenders += [f"{path}: {name}" for name in names if name not in OPTIONAL]
    assert not offenders


OPTIONAL = {
    "wandb",
    "torch.utils.tensorboard.writer",
    "umap",
    "modelassay.decompositions.kernels_triton",  # which imports triton
}
"""Packages of extras and what needs them, imported where they are used."""


def test_no_path_of_one_machine_is_committed():
    machine = re.compile(r"(?<![\w.])/(?:work|root|home|Users)/\w|/tmp/(?!$)\w")
    found = []
    for path in tracked_text_files():
        if path == Path(__file__) or path.name == "LICENSE":
            continue
        hits = machine.findall(path.read_text("utf-8", errors="replace"))
        found += [f"{path.relative_to(ROOT)}: {hit}" for hit in hits]
    assert not found


def cited_keys(tree: ast.Module) -> set[str]:
    """Constants of every tuple that is given or assigned as `references`."""
    values = [
        n.value for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "references"
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "references":
            values.append(node.value)
    tuples = [value for value in values if isinstance(value, ast.Tuple)]
    return {e.value for value in tuples for e in value.elts if isinstance(e, ast.Constant)}


def test_every_cited_key_has_a_reference():
    cited = {key for path in SOURCES for key in cited_keys(ast.parse(path.read_text("utf-8")))}
    assert len(cited) > 10
    assert cited - set(REFERENCES) == set()


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"version: {ma.__version__}" in citation


def test_installed_tools_are_pinned():
    pins = (ROOT / "constraints.txt").read_text("utf-8")
    pinned = {line.partition("==")[0].lower() for line in pins.splitlines() if "==" in line}
    assert {"torch", "transformers", "ruff", "pyright", "pytest", "mkdocs-material"} <= pinned
