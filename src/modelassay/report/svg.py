"""Standalone SVG pictures: shapes with inline colours, and text that no document can break."""

import unicodedata
from html import escape

FONT = "Helvetica, Arial, sans-serif"
MONO = "DejaVu Sans Mono, Menlo, Consolas, monospace"
INK, MUTED, LINE, PAPER = "#1c1e22", "#5b5f67", "#d9d6cd", "#ffffff"
AMBER, BLUE, GREEN, RED = (214, 138, 0), (47, 111, 159), (77, 138, 107), (181, 96, 74)

Length = float | int
"""In units of the picture."""

_GLYPHS = {"\n": "⏎", "\t": "⇥", " ": "·"}


def document(width: Length, height: Length, parts: list[str], title: str) -> str:
    """An SVG file of a picture on white paper."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img">\n<title>{escape(title)}</title>\n'
        f'<rect width="{width:g}" height="{height:g}" fill="{PAPER}"/>\n{body}\n</svg>\n'
    )


def text(
    x: Length,
    y: Length,
    content: str,
    *,
    size: Length = 11,
    anchor: str = "start",
    colour: str = INK,
    mono: bool = False,
    bold: bool = False,
) -> str:
    """One line of text."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{MONO if mono else FONT}" font-size="{size:g}" '
        f'text-anchor="{anchor}" fill="{colour}"{weight}>{escape(visible(content))}</text>'
    )


def rectangle(x: Length, y: Length, width: Length, height: Length, fill: str, tip: str = "") -> str:
    """A filled rectangle, with a sentence for who points at it."""
    told = f"<title>{escape(visible(tip))}</title>" if tip else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" '
        f'fill="{fill}">{told}</rect>'
    )


def path(steps: str, colour: str, *, width: Length = 1.8, fill: str = "none") -> str:
    """A line, or an area if it is filled."""
    return f'<path d="{steps}" fill="{fill}" stroke="{colour}" stroke-width="{width:g}"/>'


def shade(strength: Length, colour: tuple[int, int, int]) -> str:
    """A colour mixed with a pale grey: 0 is the grey, 1 the colour."""
    pale = (243, 241, 235)
    mixed = (round(p + (c - p) * strength) for p, c in zip(pale, colour, strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def token_text(token: str, most: int) -> str:
    """A token's text with its spaces visible, cut to some characters."""
    shown = "".join(_GLYPHS.get(character, character) for character in token)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def visible(content: str) -> str:
    """Text without characters that XML forbids or that would reorder what stands around them."""
    kinds = {"Cc", "Cf", "Cs", "Co", "Cn"}
    return "".join(
        f"⟨U+{ord(character):04X}⟩" if unicodedata.category(character) in kinds else character
        for character in content
    )
