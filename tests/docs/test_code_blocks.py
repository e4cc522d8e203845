"""Every Python block of the documentation runs, page by page, on a tiny scale."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README, START = ROOT / "README.md", ROOT / "docs" / "start.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SMALLER = {"tokens=2_000_000": "tokens=30_000", "width=4096, k=32": "width=24, k=4"}
"""What a page shows is what a reader wants; the test needs the same calls, not the same hour."""


def blocks_of(page: Path) -> list[str]:
    return _BLOCK.findall(page.read_text("utf-8"))


def shrunk(source: str) -> str:
    for shown, run in SMALLER.items():
        source = source.replace(shown, run)
    return source


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks_of(p)], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(blocks_of(page)):
        code = compile(shrunk(block), f"{page.name}, block {number}", "exec")
        exec(code, namespace)


def test_blocks_are_found_at_all():
    assert sum(len(blocks_of(page)) for page in PAGES) >= 6


def test_the_readme_shows_what_getting_started_runs():
    shown = blocks_of(README)
    assert shown
    assert set(shown) <= set(blocks_of(START))


def test_what_the_test_makes_smaller_still_stands_on_the_pages():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert [shown for shown in SMALLER if shown not in text] == []
