"""The page of optimised images."""

import base64
import re

import torch

from modelassay.observe.visualize.controls import controls
from modelassay.observe.visualize.image_input import UNIT
from modelassay.observe.visualize.png import to_png
from modelassay.observe.visualize.render import render
from modelassay.observe.visualize.targets import Channel
from modelassay.report.visualize import Gallery, gallery_report
from tests.observe.visualize.models import QUICK, convolutional, silent

TARGETS = (Channel("3", 1), Channel("3", 4))


def test_every_image_stands_on_the_page_with_what_was_measured():
    module = convolutional()
    found = render(module, TARGETS, settings=QUICK, image_input=UNIT)
    beside = controls(module, TARGETS, settings=QUICK, image_input=UNIT)
    gallery = Gallery(
        title="A small network", optimised=found, natural=torch.tensor([1.25, 2.5]), n_natural=40,
        controls=beside,
    )  # fmt: skip
    page = gallery_report(gallery).html()
    drawn = [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    everything = torch.cat([found.images, beside.untrained.images, beside.random_direction.images])
    assert drawn == [to_png(image) for image in everything]
    for words in (
        "natural: 1.25",
        "highest among 40 natural images",
        "An untrained network",
        "3 random direction 0",
        "learning rate",
        "2 rectifiers in the first 16 steps",
    ):
        assert words in page  # fmt: skip


def test_a_dead_unit_is_called_dead():
    found = render(silent(bias=-1e6), Channel("1", 0), settings=QUICK, image_input=UNIT)
    page = gallery_report(Gallery(title="Dead", optimised=found)).html()
    assert "exactly 0 on the image at every step" in page
    assert "Controls" not in page.split("</nav>")[0]
