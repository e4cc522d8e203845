"""The report as a person uses it: headless Chromium, from disk, with the network off."""

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelassay.audit.parts import VERDICTS
from modelassay.audit.result import Audit
from modelassay.report.axes import number
from modelassay.report.report import report

ROWS = "[...document.querySelectorAll('#latents-body tr[data-latent]')].map(r => +r.dataset.latent)"
PANEL_TEXT = "document.getElementById('panel').innerText"


@pytest.fixture(scope="module")
def page(audit: Audit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(audit).write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(autouse=True)
def no_complaints(browser: Any) -> Any:
    yield
    assert browser.complaints() == []


def search(browser: Any, text: str) -> set[int]:
    """The latents that a search finds, on one page of a hundred rows."""
    browser.run(
        "(box => { box.focus(); box.value = ''; "
        "const size = document.querySelector('#pager select'); size.value = 100; "
        "size.dispatchEvent(new Event('change')); })(document.getElementById('search'))"
    )
    browser.type(text)
    browser.run("new Promise(done => setTimeout(done, 150))")
    return set(browser.run(ROWS))


def fires_on(audit: Audit, latent: int) -> set[str]:
    examples = audit.details.examples
    places = examples.starts + examples.peaks
    chosen = (examples.latents == latent).nonzero()[:, 0].tolist()
    return {audit.vocabulary[int(examples.tokens[examples.contexts[e], places[e]])] for e in chosen}


def related_tokens(audit: Audit, latent: int) -> set[str]:
    details = audit.details
    ids = [*details.promoted[latent].tolist(), *details.suppressed[latent].tolist()]
    return fires_on(audit, latent) | {audit.vocabulary[i] for i in ids}


def test_it_opens_from_disk_and_hostile_text_does_nothing(browser: Any, page: Path) -> None:
    browser.open(page, "#latent=0")
    assert browser.run("typeof window.hacked") == "undefined"
    assert browser.run("document.images.length") == 0
    assert browser.run("document.querySelectorAll('script').length") == 4
    assert browser.run("document.querySelectorAll('.broken').length") == 0
    for latent in range(48):
        browser.run(f"location.hash = '#latent={latent}'")
    browser.wait(f"{PANEL_TEXT}.startsWith('‹ Previous') && location.hash === '#latent=47'")
    assert browser.run("typeof window.hacked") == "undefined"
    assert browser.run("document.querySelectorAll('#panel .broken').length") == 0


def test_a_script_cannot_be_smuggled_in_later(browser: Any, page: Path) -> None:
    browser.open(page)
    blocked = browser.run(
        "(() => { try { document.body.innerHTML += '<b>x</b>'; return false } "
        "catch (error) { return error.name } })()"
    )
    assert blocked == "TypeError"
    browser.events.clear()  # the refusal above is also logged


def test_search_by_verdict_index_concept_token_and_reason(
    browser: Any, page: Path, audit: Audit
) -> None:
    browser.open(page)
    everything = range(audit.width)
    by_verdict = {i for i in everything if audit.verdicts[i] == "activations"}
    assert search(browser, "verdict:activations") == by_verdict
    assert search(browser, "#17") == {17}
    assert 17 in search(browser, "17")
    concepts = audit.details.concepts
    assert concepts is not None
    docstring = concepts.names.index("docstring")
    has_docstring = {i for i in everything if docstring in concepts.indices[i].tolist()}
    assert search(browser, "concept:docstring") == has_docstring
    token = sorted(t for t in related_tokens(audit, 7) if t.startswith("word"))[0]
    with_token = {i for i in everything if any(token in t for t in related_tokens(audit, i))}
    assert search(browser, f"token:{token}") == with_token
    assert 7 in with_token
    second_seed = {i for i in everything if "second seed" in audit.reasons[i].lower()}
    assert search(browser, "reason:seed") >= second_seed
    assert search(browser, "verdict:activations concept:docstring") == by_verdict & has_docstring
    assert search(browser, "token:no-such-token") == set()
    assert browser.run("document.getElementById('matches').textContent") == "no latents"


def test_filters_of_table_and_headline_agree(browser: Any, page: Path, audit: Audit) -> None:
    browser.open(page)
    model = [i for i, v in enumerate(audit.verdicts) if v == "model"]
    browser.click("#filters [data-verdict=model]")
    assert browser.run(ROWS) == model[:25]
    dead = [i for i, v in enumerate(audit.verdicts) if v == "dead"]
    browser.click(".card[data-filter=dead]")
    assert browser.run(ROWS) == dead
    browser.click("#filters [data-verdict='']")
    assert len(browser.run(ROWS)) == 25


def test_sorting_puts_what_was_not_measured_last(browser: Any, page: Path, audit: Audit) -> None:
    browser.open(page)
    values = audit.evidence("read").value.tolist()
    measured = sorted(
        (i for i, v in enumerate(values) if not math.isnan(v)), key=values.__getitem__
    )
    unmeasured = [i for i, v in enumerate(values) if math.isnan(v)]
    assert unmeasured
    shown: dict[str, list[int]] = {}
    for direction in ("descending", "ascending"):
        browser.click("#latents-head th[data-key=read] button")
        heading = "document.querySelector('#latents-head th[data-key=read]').ariaSort"
        assert browser.run(heading) == direction
        shown[direction] = browser.run(ROWS)
        browser.click("#pager button:last-child")
        shown[direction] += browser.run(ROWS)
    assert shown["descending"] == [*measured[::-1], *unmeasured]
    assert shown["ascending"] == [*measured, *unmeasured]


def test_a_click_opens_a_latent_and_the_panel_says_what_the_audit_says(
    browser: Any, page: Path, audit: Audit
) -> None:
    browser.open(page)
    browser.run("document.querySelector('#latents th[data-key=latent] button').click()")
    browser.click("#latents-body tr[data-latent='6'] td:nth-child(3)")
    browser.wait("!document.getElementById('panel').hidden")
    text = browser.run(PANEL_TEXT)
    assert browser.run("location.hash") == "#latent=6"
    assert "Latent 6" in text
    assert audit.reasons[6] in text
    for name in ("written", "read", "read_next_layer", "null_twin_match", "stable", "firing_rate"):
        numbers = audit.evidence(name).at(6)
        low, high = number(numbers["low"]), number(numbers["high"])
        assert f"{number(numbers['value'])} [{low}, {high}]" in re.sub(r"\s+", " ", text)
    shown = browser.run("[...document.querySelectorAll('#panel .answer')].map(a => a.textContent)")
    questions = ("written", "read", "learned", "stable")
    assert shown == [audit.answers[question][6] for question in questions]


def test_examples_show_tokens_glyphs_and_activations(
    browser: Any, page: Path, audit: Audit
) -> None:
    browser.open(page, "#latent=6")
    examples = audit.details.examples
    mine = (examples.latents == 6).nonzero()[:, 0].tolist()
    mine.sort(key=lambda e: int(examples.groups[e]))
    drawn = browser.run(
        "[...document.querySelectorAll('#panel .example')].map(e => ({"
        "text: e.querySelector('.text').textContent,"
        "tips: [...e.querySelectorAll('.token[data-tip]')].map(t => t.dataset.tip),"
        "document: e.querySelector('.document').textContent}))"
    )
    assert len(drawn) == len(mine)
    for shown, e in zip(drawn, mine, strict=True):
        context, start = int(examples.contexts[e]), int(examples.starts[e])
        ids = examples.tokens[context, start : start + int(examples.lengths[e])].tolist()
        text = "".join(audit.vocabulary[i] for i in ids)
        text = text.replace("\n", "⏎\n").replace("\t", "⇥\t").replace("\u202e", "⟨U+202E⟩")
        assert shown["text"] == text
        assert shown["document"] == examples.documents[context]
        span = slice(int(examples.value_starts[e]), int(examples.value_starts[e + 1]))
        values = dict(
            zip(examples.offsets[span].tolist(), examples.values[span].tolist(), strict=True)
        )
        assert len(shown["tips"]) == len(values)
        for tip, (_, value) in zip(shown["tips"], sorted(values.items()), strict=True):
            assert float(tip) == pytest.approx(value, rel=0.011)


def in_table_order(audit: Audit) -> list[int]:
    """Latents as the table opens: what is of the model first."""
    return sorted(range(audit.width), key=lambda i: VERDICTS.index(audit.verdicts[i]))


def test_the_table_opens_with_what_is_of_the_model(browser: Any, page: Path, audit: Audit) -> None:
    browser.open(page)
    rows = browser.run(ROWS)
    assert rows == in_table_order(audit)[: len(rows)]


def test_deep_links_keys_neighbours_and_closing(browser: Any, page: Path, audit: Audit) -> None:
    browser.open(page, "#latent=20")
    title = "document.getElementById('panel-title')?.textContent"
    assert browser.run(title).startswith("Latent 20")
    after = in_table_order(audit)[in_table_order(audit).index(20) + 1]
    for key, latent in (("ArrowRight", after), ("ArrowLeft", 20), ("j", after), ("k", 20)):
        browser.press(key)
        assert browser.run(title).startswith(f"Latent {latent}")
    neighbour = int(audit.details.neighbours[20, 0])
    browser.click("#panel .neighbours a")
    browser.wait(f"{title}.startsWith('Latent {neighbour}')")
    browser.press("r")
    assert re.match(r"#latent=\d+$", browser.run("location.hash"))
    browser.press("Escape")
    assert browser.run("document.getElementById('panel').hidden")
    assert browser.run("location.hash") == ""
    browser.press("/")
    assert browser.run("document.activeElement.id") == "search"
    browser.open(page, "#latent=4800")
    assert browser.run("document.getElementById('panel').hidden")


def test_next_follows_the_order_of_the_table(browser: Any, page: Path, audit: Audit) -> None:
    browser.open(page)
    model = [i for i, v in enumerate(audit.verdicts) if v == "model"]
    browser.click("#filters [data-verdict=model]")
    browser.click(f"#latents-body tr[data-latent='{model[1]}'] th a")
    browser.wait("!document.getElementById('panel').hidden")
    browser.press("ArrowRight")
    assert browser.run("location.hash") == f"#latent={model[2]}"


def test_a_point_of_the_scatter_opens_its_latent(browser: Any, page: Path, audit: Audit) -> None:
    browser.open(page)
    canvas = "document.getElementById('scatter-canvas')"
    browser.run(f"{canvas}.scrollIntoView({{block: 'center'}})")
    left, top, width, height = browser.run(
        f"(b => [b.x, b.y, b.width, b.height])({canvas}.getBoundingClientRect())"
    )
    hint = None
    for step in range(1, 20):
        at = {"x": left + width * step / 20, "y": top + height * (1 - step / 20)}
        browser.send("Input.dispatchMouseEvent", type="mouseMoved", **at)
        if browser.run(f"{canvas}.style.cursor") == "pointer":
            hint = browser.run("document.getElementById('tip').textContent")
            for kind in ("mousePressed", "mouseReleased"):
                browser.send(
                    "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at
                )
            break
    assert hint is not None
    latent = int(hint.split(":")[0].removeprefix("Latent "))
    assert number(float(audit.variance.fisher[latent])) in hint
    browser.wait(
        f"location.hash === '#latent={latent}' && !document.getElementById('panel').hidden"
    )


def downloaded(browser: Any, folder: Path, selector: str) -> list[list[str]]:
    browser._call(
        "Browser.setDownloadBehavior",
        behavior="allow",
        downloadPath=str(folder),
        eventsEnabled=True,
    )
    before = set(folder.iterdir())
    browser.click(selector)
    for _ in range(400):
        new = [p for p in set(folder.iterdir()) - before if p.suffix == ".csv"]
        if new:
            break
        browser.run("new Promise(done => setTimeout(done, 25))")
    (path,) = new
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_numbers_of_a_figure_can_be_downloaded(
    browser: Any, page: Path, audit: Audit, tmp_path: Path
) -> None:
    browser.open(page)
    rows = downloaded(browser, tmp_path, "#scatter-csv")
    assert rows[0] == ["kind", "latent", "verdict", "euclidean_variance", "fisher_variance"]
    assert len(rows) == 1 + 48 + 128
    assert float(rows[6][3]) == pytest.approx(float(audit.variance.euclidean[5]), rel=1e-6)
    table = downloaded(browser, tmp_path, "#latents-csv")
    column = table[0].index("written_low")
    assert float(table[1][column]) == pytest.approx(float(audit.evidence("written").low[0]))
    assert len(table) == 49
    reconstruction = downloaded(browser, tmp_path, ".comparison .tools button")
    assert reconstruction[0][:6] == [
        "metric", "topk", "topk low", "topk high", "topk null", "random",
    ]  # fmt: skip
    numbers = [float(cell) for cell in reconstruction[1][1:5]]
    assert numbers == pytest.approx([0.9, 0.89, 0.91, 0.0])


def test_a_token_cannot_become_a_formula_in_a_spreadsheet(
    browser: Any, page: Path, audit: Audit, tmp_path: Path
) -> None:
    browser.open(page)
    cells = [c for row in downloaded(browser, tmp_path, "#latents-csv")[1:] for c in row]
    risky = [c for c in cells if c.startswith(("=", "+", "@"))]
    assert risky == []


@pytest.mark.parametrize("width", [390, 768, 1440])
def test_nothing_overflows_the_window(browser: Any, page: Path, width: int) -> None:
    browser.open(page, "", width, 844)
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.open(page, "#latent=3", width, 844)
    panel = browser.run("(p => [p.scrollWidth, p.clientWidth])(document.getElementById('panel'))")
    assert panel[0] <= panel[1]


def test_light_and_dark_follow_the_system(browser: Any, page: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        browser.open(page)
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(map(int, re.findall(r"\d+", ground)[:3])))
    browser.prefer("light")
    assert grounds[0] > 3 * 200
    assert grounds[1] < 3 * 60


def test_damaged_numbers_leave_the_rest_of_the_page(
    browser: Any, page: Path, tmp_path: Path
) -> None:
    text = page.read_text("utf-8")
    start = text.index('id="pack">') + len('id="pack">')
    damaged = tmp_path / "damaged.html"
    damaged.write_text(text[:start] + "AAAA" + text[text.index("</script>", start) :], "utf-8")
    browser.send("Page.navigate", url=damaged.as_uri())
    browser.wait("document.querySelector('#catalogue .broken')")
    assert "are features of the model" in browser.run("document.body.innerText")


def test_four_thousand_latents_open_search_and_sort(
    browser: Any, make_audit: Callable[..., Audit], tmp_path: Path
) -> None:
    audit = make_audit(4096, per_group=2, groups=2)
    path = report(audit).write(tmp_path / "report.html")
    browser.open(path)
    model = audit.verdicts.count("model")
    browser.run("document.getElementById('search').focus()")
    browser.type("verdict:model")
    browser.wait(f"document.getElementById('matches').textContent.includes('of {model:,} latents')")
    browser.click("#latents-head th[data-key=stable] button")
    values = audit.evidence("stable").value.tolist()
    chosen = [i for i, v in enumerate(audit.verdicts) if v == "model"]
    best = sorted(chosen, key=lambda i: -values[i])[:25]
    assert browser.run(ROWS) == best
    assert json.loads(browser.run("JSON.stringify(performance.getEntriesByType('resource'))")) == []
