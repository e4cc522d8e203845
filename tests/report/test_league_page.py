"""The page of a league: what it says, and what it survives."""

import math
from dataclasses import replace

import pytest
import torch

from modelassay.core.provenance import Provenance
from modelassay.report.drawings import plot, tiles
from modelassay.report.figures import verdict_dot
from modelassay.report.league import league_page, league_report
from modelassay.report.parts import Broken
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.league import Failure, League, MethodEntry, TestbedEntry
from modelassay.testbeds.league_storage import Row
from modelassay.testbeds.picture import Grid, Marks, Picture
from modelassay.testbeds.standing import Mean

NAN = math.nan
PICTURE = Picture(
    title="A <curve>",
    caption="What to see.",
    x_title="x",
    y_title="y",
    equal=True,
    marks=(
        Marks(
            kind="line", title="bent", role="data",
            x=torch.tensor([0.0, 1, NAN, 2, 3]), y=torch.tensor([0.0, 1, 1, 0, 1]),
        ),
        Marks(
            kind="arrows", title="read", role="model", x=torch.tensor([1.0]), y=torch.tensor([2.0])
        ),
        Marks(
            kind="points", title="many", role="found",
            x=torch.linspace(0, 1, 4000), y=torch.linspace(0, 1, 4000),
        ),
    ),
)  # fmt: skip
GRID = Grid(
    title="Pairs",
    caption="Rows and columns.",
    values=torch.tensor([[1.0, 1, 0], [-2, 0, 0]]),
    row_names=("red", "blue"),
    column_names=("square", "disc", "star"),
)


def row(method: str, seed: int, arm: str, found: str = "partly", **scores: float) -> Row:
    values = {"v": 0.25, "match_model": 0.2, "match_activations": 0.6, "s_graph": NAN, "pad": 0.5}
    return Row(
        testbed="T1.x", arm=arm, method=method, seed=seed, fit=0, found=found,
        own={"<own>": 0.5}, seconds=2.0, **(values | scores),
    )  # fmt: skip


@pytest.fixture
def league() -> League:
    places = [(seed, arm) for seed in (0, 1) for arm in ("a", "b")]
    return League(
        testbeds=(
            TestbedEntry(name="T1.x", title="A <title>", claim="It claims.", references=()),
            TestbedEntry(name="T2", title="Failed", claim="It claims more.", references=()),
        ),
        methods=(
            MethodEntry(name="pca", title="PCA", sees="activations"),
            MethodEntry(name="lib", title="Basis", sees="model"),
        ),
        seeds=(0, 1),
        fits=1,
        rows=(
            *(
                row("pca", *place, v=NAN, match_model=0.0, match_activations=0.0)
                for place in places
            ),
            *(
                row("lib", *place, "model", match_model=0.9, match_activations=0.1, pad=1.0)
                for place in places
            ),
        ),
        known={
            "T1.x": (
                KnownNumber(name="n", expected=1.0, tolerance=0.1, measured=1.05, source="a paper"),
                KnownNumber(name="m", expected=1.0, tolerance=0.1, measured=NAN, source="a paper"),
            )
        },
        drawings={"T1.x": (PICTURE, GRID)},
        failures=(Failure(testbed="T2", seed=0, what="building", reason="no <way>"),),
        provenance=Provenance.collect(seed=0),
    )


def test_the_page_says_what_was_found_and_what_failed(league: League) -> None:
    html = league_report(league).html()
    assert "In 4 of 8 trials a method finds the features of the model alone" in html
    assert "building (seed 0): no &lt;way&gt;" in html
    assert "A &lt;title&gt;" in html
    assert "<title>A" not in html.partition("</head>")[2]
    assert "1 of 2 reproduced" in html
    assert html.count('class="failed"') == 2
    assert not [p for s in league_page(league).sections for p in s.parts if isinstance(p, Broken)]


def test_a_picture_that_cannot_be_drawn_leaves_the_rest(league: League) -> None:
    bad = replace(PICTURE, marks=())
    html = league_report(replace(league, drawings={"T1.x": (bad,)})).html()
    assert "could not be made" in html
    assert "It claims more." in html


def test_a_line_is_broken_where_a_value_is_missing_and_points_are_thinned() -> None:
    line, arrow, points = plot(PICTURE).shapes
    assert line.path.count("M") == 2
    assert line.path.count("L") == 2
    assert arrow.path.count("L") == 3
    assert 1000 < points.path.count("M") <= 1500


def test_equal_axes_have_one_unit() -> None:
    drawn = plot(PICTURE)
    across = {float(label): at for at, label in drawn.x_ticks}
    up = {float(label): at for at, label in drawn.y_ticks}
    unit_x = (across[2] - across[0]) / 2
    unit_y = (up[0] - up[2]) / 2
    assert unit_x == pytest.approx(unit_y, abs=0.2)


def test_neighbouring_cells_of_one_shade_are_one_tile_and_zeros_none() -> None:
    first, second = tiles(GRID).tiles
    assert first.width == 2 * second.width
    assert (first.shade, first.negative) == (0.5, False)
    assert (second.shade, second.negative) == (1.0, True)
    assert tiles(GRID).largest == "2"


def test_a_verdict_without_a_value_has_no_dot() -> None:
    def mean(value: float, low: float, high: float) -> Mean:
        return Mean(value=value, low=low, high=high, between_fits=NAN, n=3)

    assert verdict_dot(mean(NAN, NAN, NAN)).x is None
    dot = verdict_dot(mean(0.5, 0.0, 1.0))
    assert (dot.low, dot.x, dot.high) == (8.0, 75.0, 142.0)
    assert verdict_dot(mean(1.0, NAN, NAN)).low is None
