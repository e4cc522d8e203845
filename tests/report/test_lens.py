"""The lens's page and pictures: whole, self-contained, and safe whatever a token holds."""

import shutil
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch

from modelassay.core.errors import UnknownNameError
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import generator
from modelassay.observe.lenses.lens import LogitLens
from modelassay.observe.lenses.quality import LensQuality
from modelassay.observe.lenses.reading import lens_reading
from modelassay.observe.lenses.tuned import TunedLens
from modelassay.report import svg
from modelassay.report.lens import lens_report
from modelassay.report.lens_parts import MEANINGS, shades_of, values_of
from modelassay.report.lens_picture import curves_picture, lens_picture, meaning_of
from modelassay.report.raster import write_png
from modelassay.subjects.testing import tiny_subject

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=2'>",
    "\u202ereversed",
    "&lt;b&gt;",
    "<!--",
    "\ud800",
    "\x00\n",
    " plain",
)
TOKENS = torch.randint(67, (26,), generator=generator(0))


@pytest.fixture(scope="module")
def readings():
    subject = tiny_subject("llama")
    zero = TunedLens.untrained(subject)
    g = generator(3)
    lens = TunedLens(
        weight=0.1 * torch.randn(2, 32, 32, generator=g), bias=zero.bias, header=zero.header
    )
    found = lens_reading(subject, [LogitLens(), lens], TOKENS, count=5)
    hostile = {token: HOSTILE[token % len(HOSTILE)] for token in range(67)}
    return tuple(
        replace(
            each,
            top_texts={token: hostile[token] for token in each.top_texts},
            texts=tuple(hostile[token] for token in TOKENS.tolist()),
        )
        for each in found
    )


def test_values_are_those_of_the_reading(readings):
    reading = readings[0]
    assert torch.equal(values_of(reading, "probability"), reading.top_probabilities[:, :, 0])
    torch.testing.assert_close(
        values_of(reading, "target")[:, :-1], (-reading.cross_entropy[:, :-1]).exp()
    )
    assert values_of(reading, "rank")[:, -1].isnan().all()
    for meaning in MEANINGS:
        shades, full = shades_of(readings, meaning.key)
        assert len(shades) == 2
        assert full > 0
        for each in shades:
            assert float(each.min()) >= 0
            assert float(each.max()) <= 1


def test_pictures_are_well_formed_whatever_tokens_hold(readings):
    for meaning in MEANINGS:
        picture = lens_picture(readings[0], meaning.key)
        root = ElementTree.fromstring(picture)
        boxes = [e for e in root.iter() if e.tag.endswith("rect")]
        assert len(boxes) == 1 + 3 * 26
        assert not [e for e in root.iter() if e.tag.endswith(("script", "img"))]
    with pytest.raises(UnknownNameError, match="'entropy'"):
        meaning_of("entropi")


def test_curves_show_every_lens():
    g = generator(1)
    tokens = torch.full((8,), 10.0, dtype=torch.float64)
    sums = torch.rand(8, 5, 4, generator=g, dtype=torch.float64) * 10
    depths = ("embedding", "0", "1", "2")
    found = [
        LensQuality(lens=name, depths=depths, sums=sums * size, tokens=tokens, seed=0)
        for name, size in (("logit", 1.0), ("tuned", 0.3))
    ]
    for measure in ("kl", "agreement"):
        picture = curves_picture(found, "toy <model>", measure)
        ElementTree.fromstring(picture)
        assert "tuned lens" in picture
        assert "toy &lt;model&gt;" in picture
        assert picture.count("rgba(") == 2  # a band for each
        assert "nan" not in picture


def test_invisible_characters_are_shown():
    assert svg.visible("a\u202eb\x00") == "a⟨U+202E⟩b⟨U+0000⟩"
    assert svg.token_text("  x\n", 8) == "··x⏎"
    assert svg.token_text("abcdefghij", 5) == "abcd…"
    assert svg.shade(0.0, svg.BLUE) == "#f3f1eb"
    assert svg.shade(1.0, svg.BLUE) == "#2f6f9f"


def test_a_machine_without_a_rasteriser_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(UnknownNameError, match="rsvg-convert, inkscape, chromium"):
        write_png(tmp_path / "x.png", svg.document(10, 10, [], "x"))


def test_the_page_works_in_a_browser(readings, browser, tmp_path):
    page = lens_report(readings, Provenance.collect(seed=0)).write(tmp_path / "lens.html")
    html = page.read_text("utf-8")
    assert "http://" not in html.replace("http://www.w3.org", "")
    browser.open(page)
    assert browser.complaints() == []
    assert browser.run("window.hacked") is None
    assert browser.run("document.querySelectorAll('#lens-frame td').length") == 3 * 26
    before = browser.run("document.querySelector('#lens-frame tbody').textContent")
    scale = browser.run("document.querySelector('#lens-scale').textContent")
    pick = "(s => {{ s.value = '{}'; s.dispatchEvent(new Event('change')); }})"
    browser.run(pick.format(1) + "(document.querySelectorAll('#lens-controls select')[0])")
    assert browser.run("document.querySelector('#lens-frame tbody').textContent") != before
    browser.run(pick.format(4) + "(document.querySelectorAll('#lens-controls select')[1])")
    assert browser.run("document.querySelector('#lens-scale').textContent") != scale
    browser.click("#lens-frame td[data-depth='1'][data-token='3']")
    assert "layer 0" in browser.run("document.getElementById('lens-detail').textContent")
    assert browser.run("document.querySelectorAll('.lens-top tr').length") == 5
    browser.press("ArrowUp")
    assert "layer 1" in browser.run("document.getElementById('lens-detail').textContent")
    assert browser.complaints() == []
