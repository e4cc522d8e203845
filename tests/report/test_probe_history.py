"""The page and the picture of a training history."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from modelassay.core.provenance import Provenance
from modelassay.observe.probes.training_history import MEASURES, TrainingHistory
from modelassay.report.history_picture import history_picture, site_labels
from modelassay.report.parts import Broken
from modelassay.report.probe_history import as_text, history_report

SITES = ("resid_pre.0", "resid_post.0", "resid_post.1")
STEPS = (0, 1, 512, 1024)
RESAMPLES = 5


def a_history() -> TrainingHistory:
    """The second concept is learnt at step 512 at the second site, the first is never there."""
    scores = torch.zeros(2, len(SITES), len(STEPS), RESAMPLES, dtype=torch.float64)
    scores[0] = -0.1
    scores[1, 1, 2:] = 0.75
    nothing = torch.zeros(2, RESAMPLES, dtype=torch.float64)
    return TrainingHistory(
        subject="run/step-1024", steps=STEPS, sites=SITES, concepts=("never <b>", "learnt"),
        descriptions=("N.", "L."), graded=(True, False), n_train=(60, 60), n_test=(40, 40),
        n_test_groups=(9, 9), null="the model at step 0", scores=scores,
        task=torch.zeros_like(scores), validation=scores[..., 0], token=nothing - 0.2, bag=nothing,
        twin=scores[:, :, 0],
    )  # fmt: skip


def rectangles(picture: str) -> list[tuple[str, str]]:
    """Sentence and colour of every cell."""
    root = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    return [
        (title.text or "", each.get("fill") or "")
        for each in root.iter(f"{space}rect")
        if (title := each.find(f"{space}title")) is not None
    ]


def test_a_picture_has_a_cell_for_each_concept_site_and_step():
    for measure in MEASURES:
        assert len(rectangles(history_picture(a_history(), measure))) == 2 * 3 * 4


def test_a_cell_says_what_it_is_and_a_dot_marks_those_above_0():
    picture = history_picture(a_history())
    colours = dict(rectangles(picture))
    strong = "learnt, resid_post.0, step 512: 0.750 [0.750, 0.750]"
    none = "learnt, resid_post.0, step 1: 0.000 [0.000, 0.000]"
    assert strong in colours
    assert colours[strong] != colours[none]
    assert picture.count("<circle") == 2


def test_one_colour_scale_serves_all_panels():
    history = a_history()
    louder = history.scores.clone()
    louder[0, 2, 3] = 2.0
    quiet, loud = (
        dict(rectangles(history_picture(each, "score")))
        for each in (history, replace(history, scores=louder))
    )
    cell = "learnt, resid_post.0, step 1024: 0.750 [0.750, 0.750]"
    assert quiet[cell] != loud[cell]


def test_streams_are_labelled_by_layer_and_other_sites_by_name():
    assert site_labels(SITES) == ("in", "0", "1")
    assert site_labels(("resid_pre.0", "mlp_out.3")) == ("resid_pre.0", "mlp_out.3")


def test_unknown_cells_are_left_white():
    history = a_history()
    holes = history.scores.clone()
    holes[1, 1, 3] = torch.nan
    colours = dict(rectangles(history_picture(replace(history, scores=holes), "score")))
    assert any("step 1024: nan" in tip and fill == "#ffffff" for tip, fill in colours.items())


@pytest.mark.parametrize("width", [1, 4, 20])
def test_step_labels_do_not_stand_on_each_other(width: int):
    history = a_history()
    steps = tuple(1000 * n for n in range(width))
    wide = replace(
        history, steps=steps, scores=history.scores[:, :, :1].expand(-1, -1, width, -1),
        task=history.task[:, :, :1].expand(-1, -1, width, -1),
        validation=history.validation[:, :, :1].expand(-1, -1, width),
    )  # fmt: skip
    root = ElementTree.fromstring(history_picture(wide))
    labels = [
        (float(each.get("x") or 0), each.text or "")
        for each in root.iter("{http://www.w3.org/2000/svg}text")
        if each.get("text-anchor") == "middle" and (each.text or "").isdigit()
    ]
    first = labels[: len(labels) // 2]  # the other panel has the same
    assert first[0][1] == "0"
    assert (len(first) == width) == (width == 1)
    for (x, text), (after, following) in pairwise(first):
        assert after - x > 2.5 * (len(text) + len(following))


def test_no_part_is_broken_and_names_are_escaped():
    page = history_report(a_history(), Provenance.collect(seed=0))
    parts = [part for section in page.page.sections for part in section.parts]
    assert not [part for part in parts if isinstance(part, Broken)]
    html = page.html()
    assert "1 of 2 concepts can be read better than by every control; 1 not encoded." in html
    assert "never &lt;b&gt;" in html
    assert "never <b>" not in html
    assert "mcgrath2022" in html


def test_the_terminal_gets_the_table():
    lines = as_text(a_history()).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["concept", "never <b>", "learnt"]
    assert lines[2].split()[1:4] == ["learnt", "512", "resid_post.0"]
