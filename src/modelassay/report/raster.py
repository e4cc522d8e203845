"""SVG to PNG with a program that draws SVG, where the machine has one."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from modelassay.core.errors import StorageError, UnknownNameError
from modelassay.core.files import write_atomically

_SCALE = 2  # pixels per unit of the picture: sharp in print (ours)
_SECONDS = 120


def write_png(path: str | Path, picture: str) -> Path:
    """Write an SVG picture as PNG.

    Fonts and shaping are a rasteriser's work, so one of rsvg-convert, inkscape and Chromium draws;
    SVG and HTML need none of them.

    Args:
        path: of the PNG.
        picture: the SVG.

    Raises:
        UnknownNameError: none of these programs is there.
        StorageError: the program failed, or the place cannot be written.
    """
    program = next((name for name in _COMMANDS if shutil.which(name)), None)
    if program is None:
        raise UnknownNameError("A program that draws SVG as PNG", "none on the path", _COMMANDS)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "picture.svg", Path(folder) / "picture.png"
        source.write_text(picture, "utf-8")
        command = _COMMANDS[program](source, target, _size(picture), folder)
        done = subprocess.run(
            [program, *command], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if not target.is_file() or not target.stat().st_size:
            raise StorageError(
                f"{program} must write a PNG; got exit code {done.returncode} "
                f"({done.stderr.strip()[-200:]}). Write SVG or HTML instead."
            )
        write_atomically(path, target.read_bytes())
    return Path(path)


def _size(picture: str) -> tuple[int, int]:
    found = re.search(r'<svg[^>]* width="([\d.]+)" height="([\d.]+)"', picture)
    assert found is not None, "pictures of ours say how large they are"
    return round(float(found[1])), round(float(found[2]))


Command = Callable[[Path, Path, tuple[int, int], str], list[str]]


def _chromium(source: Path, target: Path, size: tuple[int, int], folder: str) -> list[str]:
    # --no-sandbox: in containers there is none; the page is ours and loads nothing.
    return [
        "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder}/profile", f"--force-device-scale-factor={_SCALE}",
        f"--window-size={size[0]},{size[1]}", f"--screenshot={target}", source.as_uri(),
    ]  # fmt: skip


_COMMANDS: dict[str, Command] = {
    "rsvg-convert": lambda source, target, _size, _folder: [
        f"--zoom={_SCALE}", f"--output={target}", str(source),
    ],
    "inkscape": lambda source, target, size, _folder: [
        str(source), f"--export-filename={target}", f"--export-width={_SCALE * size[0]}",
    ],
    "chromium": _chromium,
    "google-chrome": _chromium,
}  # fmt: skip
