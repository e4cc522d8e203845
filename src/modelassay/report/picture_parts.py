"""Pictures on a page, each with words beside it."""

import base64
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One picture."""

    title: str
    png: bytes
    lines: tuple[str, ...] = ()
    """What was measured on it, in short lines."""
    warning: str = ""
    """Why it must not be taken for what it looks like; empty if nothing is wrong."""

    @property
    def address(self) -> str:
        """The picture itself, as the address of an image."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureWall:
    """Pictures side by side."""

    title: str
    pictures: tuple[Picture, ...]
    caption: str
    width: int = 128
    """Of each picture on the page, in pixels."""
