import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from modelassay.audit.result import Audit
from modelassay.report import html
from modelassay.report.build import build
from modelassay.report.parts import Broken, Paragraph
from modelassay.report.report import report

LOADING = {"src", "srcset", "action", "formaction", "background", "poster", "xlink:href"}


class Reader(HTMLParser):
    """Collects elements, and the content of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside: list[str] | None = None
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._inside = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._inside is not None:
            self.scripts.append("".join(self._inside))
            self._inside = None

    def handle_data(self, data: str) -> None:
        (self.text if self._inside is None else self._inside).append(data)


@pytest.fixture(scope="module")
def page(audit: Audit) -> Reader:
    return Reader(report(audit).html())


def test_hostile_names_stay_text(page: Reader) -> None:
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 4  # two of JSON, one of numbers, one program
    assert "img" not in tags
    assert "model" not in tags
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "toy <model>" in "".join(page.text)


def test_hostile_tokens_arrive_unchanged_in_the_data(page: Reader, audit: Audit) -> None:
    vocabulary = json.loads(page.scripts[1])["vocabulary"]
    assert set(audit.vocabulary[:8]) <= set(vocabulary)
    assert "</script><script>window.hacked=1</script>" in vocabulary


def test_nothing_is_loaded_from_anywhere(page: Reader) -> None:
    for tag, attributes in page.elements:
        assert not LOADING & set(attributes), tag
        if tag in ("a", "link"):
            assert (attributes["href"] or "").startswith(("#", "data:"))
    assert "url(" not in report_style(page)
    assert "@import" not in report_style(page)


def report_style(page: Reader) -> str:
    return "".join(page.text)


def test_the_policy_admits_this_script_and_nothing_else(page: Reader) -> None:
    policy = next(
        attributes["content"] or ""
        for _, attributes in page.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(page.scripts[-1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "require-trusted-types-for 'script'" in policy


def test_every_anchor_of_the_navigation_exists_and_ids_are_unique(page: Reader) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {(a["href"] or "")[1:] for tag, a in page.elements if tag == "a"}
    assert targets <= set(ids)


def test_every_interval_of_the_reconstruction_is_printed(page: Reader, audit: Audit) -> None:
    text = re.sub(r"\s+", " ", "".join(page.text))
    assert "0.900 [0.890, 0.910] null 0" in text
    assert "higher is better · n = 1,000" in text


def test_one_broken_part_does_not_kill_the_page(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(part: object, pack: object) -> None:
        raise ValueError("a <b>bad</b> scatter")

    monkeypatch.setitem(html._EXTRAS, html.Scatter, fail)
    page = Reader(report(audit).html())
    text = "".join(page.text)
    assert "ValueError: a <b>bad</b> scatter" in text
    assert "Large, or seen: Euclidean against Fisher variance could not be made." in re.sub(
        r"\s+", " ", text
    )
    assert "Thresholds and their reasons" in text
    assert [a.get("id") for _, a in page.elements if a.get("id") == "latents-table"]


def test_a_part_that_could_not_be_built_is_named(audit: Audit) -> None:
    lacking = replace(audit, answers={})
    page = build(lacking)
    broken = [p for s in page.sections for p in s.parts if isinstance(p, Broken)]
    assert {p.title for p in broken} >= {"Answers", "Catalogue"} - {"Catalogue"}
    text = "".join(Reader(html.render(page)).text)
    assert "KeyError: 'written'" in text
    assert "Reconstruction" in text


def test_a_part_without_a_template_is_broken_not_fatal(audit: Audit) -> None:
    class Unheard(Paragraph):
        pass

    page = build(audit)
    section = replace(page.sections[0], parts=(Unheard(text="?"),))
    text = "".join(Reader(html.render(replace(page, sections=(section,)))).text)
    assert "TemplateNotFound" in text


def test_four_thousand_latents_stay_below_fifteen_megabytes(
    make_audit: Callable[..., Audit],
) -> None:
    # As many examples as an audit keeps: ten strongest and two from each of five quantile groups.
    audit = make_audit(4096, per_group=4, groups=4, window=41)
    examples = audit.details.examples
    assert len(examples.latents) >= 19 * 4096
    assert len(report(audit).html().encode()) < 15e6
