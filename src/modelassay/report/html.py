"""Page -> one HTML file that needs nothing else: no network, no fonts, no other file."""

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from modelassay.report import drawings, figures
from modelassay.report.axes import number, percent
from modelassay.report.degrade import or_broken
from modelassay.report.intervention_parts import EffectMap, StrengthCurves
from modelassay.report.intervention_pictures import curves_picture, effect_picture
from modelassay.report.league_parts import Exhibit
from modelassay.report.lens_parts import LensMap
from modelassay.report.lens_payload import lens_payload
from modelassay.report.pack import Pack
from modelassay.report.parts import (
    Broken,
    Catalogue,
    Comparison,
    Histograms,
    Page,
    Part,
    Scatter,
)
from modelassay.report.payload import catalogue_payload, embeddable, scatter_payload

_HERE = Path(__file__).parent
_SCRIPTS = ("data", "dom", "downloads", "scatter", "table", "panel", "lens", "main")
_STYLES = ("style", "lens", "observations", "pictures")

_EXTRAS: dict[type, Callable[[Any, Pack], dict[str, Any]]] = {
    Comparison: lambda part, _: {"strips": [figures.strip(m, part.columns) for m in part.metrics]},
    Histograms: lambda part, _: {
        "drawings": [figures.bars(h, tuple(c.key for c in part.classes)) for h in part.histograms]
    },
    Scatter: lambda part, pack: {"payload": _payload(scatter_payload(part, pack))},
    Catalogue: lambda part, pack: {"payload": _payload(catalogue_payload(part, pack))},
    LensMap: lambda part, pack: {"payload": _payload(lens_payload(part, pack))},
    EffectMap: lambda part, _: {"drawn": Markup(effect_picture(part))},
    StrengthCurves: lambda part, _: {"drawn": Markup(curves_picture(part))},
    Exhibit: lambda part, _: {
        "drawn": [drawings.geometry(each) for each in part.drawings],
        "plot": drawings,
    },
}
"""What a part's template needs beyond the part."""


def render(page: Page) -> str:
    """The page as HTML. A part that cannot be drawn is replaced by one that says so."""
    pack = Pack()
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [
        (section, [_part(part, pack) for part in section.parts]) for section in page.sections
    ]
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            sections=sections,
            style=Markup("\n".join(_asset(f"{name}.css") for name in _STYLES)),
            script=Markup(script),
            script_hash=digest,
            pack=pack.base64(),
        )
    )
    # A lone surrogate in a name cannot be written as UTF-8.
    return html.encode("utf-8", "replace").decode("utf-8")


def _part(part: Part, pack: Pack) -> Markup:
    title = getattr(part, "title", "")
    drawn = or_broken(title, lambda: _draw(part, pack))
    return _draw(drawn, pack) if isinstance(drawn, Broken) else drawn


def _draw(part: Part, pack: Pack) -> Markup:
    kind = type(part)
    extras = _EXTRAS[kind](part, pack) if kind in _EXTRAS else {}
    template = _environment().get_template(f"{kind.__name__.lower()}.html.j2")
    return Markup(template.render(part=part, figures=figures, **extras))


def _payload(content: dict[str, Any]) -> Markup:
    return Markup(embeddable(content))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    return environment


@cache
def _asset(name: str) -> str:
    return (_HERE / "assets" / name).read_text("utf-8")


def _script() -> str:
    # One function around all files: they share names with each other and with nothing else.
    body = "\n".join(_asset(f"{name}.js") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}\n}})();'
