"""Pictures on a page, each with words beside it."""

import base64
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnail:
    """A small picture in a row."""

    png: bytes
    text: str
    """Below it; short."""
    hint: str
    """Shown to a pointer that rests on it, and read to those who do not see the picture."""

    @property
    def address(self) -> str:
        """The picture itself, as the address of an image."""
        return _address(self.png)


@dataclass(frozen=True, kw_only=True, slots=True)
class ThumbnailRow:
    """Small pictures of one kind."""

    label: str
    thumbnails: tuple[Thumbnail, ...]
    empty: str = "none"
    """Said where there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture."""

    title: str
    png: bytes
    lines: tuple[str, ...] = ()
    """What was measured on it, in short lines."""
    warning: str = ""
    """Why it must not be taken for what it looks like; empty if nothing is wrong."""
    rows: tuple[ThumbnailRow, ...] = ()
    """What stands beside it."""

    @property
    def address(self) -> str:
        """The picture itself, as the address of an image."""
        return _address(self.png)


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureWall:
    """Pictures side by side; those with rows beside them, below each other."""

    title: str
    pictures: tuple[Picture | None, ...]
    """None leaves a place of a grid empty."""
    caption: str
    width: int = 128
    """Of each picture on the page, in pixels."""
    columns: int = 0
    """Of a grid without gaps, whose words show only to a pointer; 0 for as many as fit."""


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
