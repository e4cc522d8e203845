"""T6: the same circle in both arms; only one follows when it is turned."""

import math
from dataclasses import replace

import pytest
import torch

from modelassay.geometry.circles import irreducibility
from modelassay.testbeds.circle import (
    DAYS,
    KINDS,
    SIZE,
    answers_that_follow,
    build,
    found_plane,
    response,
)
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Grid, Picture
from modelassay.testbeds.testbed import Testbed

SMALL = replace(SIZE, tokens=100_000)


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return build(0)


def test_everything_conforms():
    for check in conformance(KINDS[0]):
        assert check.passed, check


def test_the_known_numbers_are_reproduced(testbed: Testbed):
    numbers = testbed.known()
    assert len(numbers) == 16
    for number in numbers:
        assert number.reproduced, number


def test_the_used_circle_adds_and_the_unused_one_names(testbed: Testbed):
    for inputs in (testbed.arms[0].data, testbed.arms[0].interventional):
        day, count = inputs[:, :7].argmax(1), inputs[:, 7:14].argmax(1)
        used, unused = (arm.output(inputs=inputs) for arm in testbed.arms)
        assert torch.equal(used.argmax(1), (day + count) % 7)
        torch.testing.assert_close(unused, inputs[:, :7], atol=1e-4, rtol=0)


def test_pca_finds_a_plane_that_geometry_calls_a_circle_in_both_arms(testbed: Testbed):
    used, unused = testbed.arms
    pca = METHODS["pca"].make(used, testbed.size, 0)
    plane = found_plane(used, pca)
    assert irreducibility(plane.points(used.activations[:2000])).looks_circular
    assert response(used, plane) == pytest.approx(1, abs=0.01)
    assert response(unused, plane) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(answers_that_follow(used, plane), torch.eye(7), atol=0.01, rtol=0)
    # The answers do not move: always in the first column.
    assert (answers_that_follow(unused, plane)[:, 0] == 1).all()


def test_sparse_coding_tiles_the_circle_in_both_arms(testbed: Testbed):
    used, unused = testbed.arms
    topk = METHODS["topk"].make(used, SMALL, 0)
    assert torch.equal(topk.directions, METHODS["topk"].make(unused, SMALL, 0).directions)
    scores = testbed.scores(used, topk)
    assert scores.match_activations > 0.4
    assert scores.v < 0.2
    own = testbed.own_scores(used, topk)
    assert own["R"] > 0.9
    assert own["separability"] > 0.5
    assert testbed.own_scores(unused, topk)["R"] < 0.1


def test_a_plane_across_the_circle_does_not_turn_the_answers(testbed: Testbed):
    used = testbed.arms[0]
    plane = found_plane(used, METHODS["pca"].make(used, testbed.size, 0))
    aside = torch.linalg.qr(torch.cat([plane.axes, torch.eye(64)[:2]]).T)[0].T[2:]
    assert response(used, replace(plane, axes=aside)) < 0.3
    assert not math.isnan(response(used, plane))


def test_the_picture_shows_both_arms(testbed: Testbed):
    pca = METHODS["pca"].make(testbed.arms[0], testbed.size, 0)
    drawn = testbed.draw({"PCA": pca})
    assert [type(each) for each in drawn] == [Picture, Grid, Grid, Picture]
    assert len(DAYS) == 7
