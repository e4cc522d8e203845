"""The page of optimised images."""

import base64
import re

import torch

from modelassay.core.randomness import generator
from modelassay.observe.visualize.controls import controls
from modelassay.observe.visualize.image_examples import WantedImages, find_image_examples
from modelassay.observe.visualize.image_input import UNIT
from modelassay.observe.visualize.image_set import LoadedImages
from modelassay.observe.visualize.png import to_png
from modelassay.observe.visualize.render import render
from modelassay.observe.visualize.targets import Channel
from modelassay.report.html import render as page_html
from modelassay.report.parts import Page, Section
from modelassay.report.picture_parts import Picture, PictureWall
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


def test_examples_stand_beside_the_first_facet_of_their_channel():
    module = convolutional()
    photographs = LoadedImages(torch.rand(12, 3, 24, 24, generator=generator(0)))
    wanted = WantedImages(n_top=2, n_bands=2, per_band=1, n_random=2)
    examples = find_image_examples(
        module, "3", photographs, channels=[1, 4], wanted=wanted, image_input=UNIT
    )
    found = render(module, TARGETS, settings=QUICK, image_input=UNIT, facets=2)
    page = gallery_report(Gallery(title="Beside", optimised=found, examples=examples)).html()
    crops = [e.crop for unit in examples.units for g in unit.groups for e in g.examples]
    drawn = [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert [to_png(crop) in drawn for crop in crops] == [True] * len(crops)
    assert len(drawn) == 4 + len(crops)
    assert page.count("strongest</span>") == 2
    assert "sees up to 9 × 9 pixels" in page


def test_a_channel_that_never_fires_on_the_images_is_said_not_to():
    module = silent(bias=-1e6)
    photographs = LoadedImages(torch.rand(3, 3, 24, 24, generator=generator(0)))
    examples = find_image_examples(module, "1", photographs, channels=[0], image_input=UNIT)
    found = render(module, Channel("1", 0), settings=QUICK, image_input=UNIT)
    page = gallery_report(Gallery(title="Dead", optimised=found, examples=examples)).html()
    assert "Never fires on these 3 images" in page


def test_a_grid_leaves_places_empty():
    picture = Picture(title="a tile", png=to_png(torch.zeros(3, 2, 2)), lines=("more",))
    wall = PictureWall(title="", pictures=(None, picture), caption="", columns=2)
    html = page_html(Page(title="", subtitle="", sections=(
        Section(anchor="a", title="", parts=(wall,)),), footer=""))  # fmt: skip
    assert html.count('<li class="empty">') == 1
    assert html.count("a tile") == 2
