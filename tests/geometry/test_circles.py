"""Engels' indices: slow definitions, invariances, known shapes; planes and their rotation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.geometry.circles import (
    Plane,
    irreducibility,
    mixture,
    plane_of_classes,
    separability,
)


def cloud(seed: int, count: int = 300) -> torch.Tensor:
    points = torch.randn(count, 2, generator=generator(seed))
    points[: count // 2, 0] = points[: count // 2, 1] * 0.3 + 1
    return points


def circle(count: int, seed: int = 0) -> torch.Tensor:
    angle = 2 * math.pi * torch.rand(count, generator=generator(seed))
    return torch.stack([angle.cos(), angle.sin()], 1)


@given(st.integers(0, 1000))
def test_separability_matches_numpys_histogram(seed):
    points = cloud(seed).double()
    found = []
    for angle in np.linspace(0, 2 * math.pi, 7):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        x, y = (points.numpy() @ turn).T
        joint = np.histogram2d(x, y, bins=5)[0] / len(points)
        product = np.outer(joint.sum(1), joint.sum(0))
        cells = zip(joint.flat, product.flat, strict=True)
        found.append(sum(j * math.log2(j / p) for j, p in cells if j))
    assert separability(points, n_bins=5, n_angles=7) == pytest.approx(min(found), abs=1e-9)


@given(st.integers(0, 1000))
def test_mixture_is_no_smaller_than_any_strip(seed):
    points, g = cloud(seed), generator(seed)
    best = mixture(points)
    for _ in range(50):
        y = points @ torch.randn(2, generator=g) + 2 * torch.randn(1, generator=g)
        share = (y.abs() < 0.1 * y.square().mean().sqrt()).float().mean()
        assert best >= float(share) - 0.01


def test_mixture_is_exact_in_the_offset():
    # All points on a line: only the offset is left to choose.
    y = cloud(3)[:, 0].double()
    strips = y[:, None] + torch.linspace(-4, 4, 20_001, dtype=torch.float64)
    inside = strips.abs() < 0.1 * strips.square().mean(0).sqrt()
    best = float(inside.double().mean(0).max())
    points = torch.stack([0.6 * y, 0.8 * y], 1)
    assert best <= mixture(points) <= best + 1.5 / len(y)


def test_a_known_best_strip_is_found():
    points = torch.randn(1000, 2, generator=generator(0)) * 3
    angle = 0.4321
    line = torch.tensor([math.cos(angle), math.sin(angle)])
    points[:600] = torch.randn(600, 1, generator=generator(1)) * 3 * line + torch.tensor([1.0, 2])
    assert 0.6 <= mixture(points) < 0.66


def test_a_circle_is_flagged_and_what_comes_apart_is_not():
    assert irreducibility(circle(4000)).looks_circular
    normal = irreducibility(torch.randn(4000, 2, generator=generator(0)))
    assert not normal.looks_circular
    assert normal.separability == pytest.approx(81 / (2 * 4000 * math.log(2)), rel=0.5)
    along = torch.rand(4000, generator=generator(0))
    first = torch.arange(4000)[:, None] % 2 == 0
    segments = torch.where(
        first, torch.stack([1 + along, 0 * along], 1), torch.stack([0 * along, 1 + along], 1)
    )
    mixed = irreducibility(segments)
    assert mixed.separability == pytest.approx(1, abs=0.02)
    assert mixed.mixture == pytest.approx(0.5, abs=0.01)


def test_scale_and_place_do_not_matter():
    points = cloud(0)
    moved = points.double() * 7 + torch.tensor([3.0, -5])
    assert separability(moved) == pytest.approx(separability(points.double()), abs=1e-9)
    assert mixture(moved) == pytest.approx(mixture(points.double()), abs=0.01)


def test_a_turn_by_a_class_moves_each_class_to_the_next():
    columns = torch.linalg.qr(torch.randn(9, 2, generator=generator(0)))[0]
    angle = 2 * math.pi * torch.arange(7) / 7
    for sign in (1, -1):  # however the embedding runs around
        x = torch.stack([angle.cos(), sign * angle.sin()], 1) @ columns.T + 3
        plane = plane_of_classes(x, torch.arange(7), 7)
        torch.testing.assert_close(plane.turned(x, 2 * math.pi / 7), x.roll(-1, 0))
        torch.testing.assert_close(plane.turned(x, 4 * math.pi), x)


def test_what_is_outside_the_plane_stays():
    plane = Plane(axes=torch.eye(4)[:2], centre=torch.zeros(4))
    turned = plane.turned(torch.tensor([[1.0, 0, 5, 6]]), math.pi / 2)
    torch.testing.assert_close(turned, torch.tensor([[0.0, 1, 5, 6]]), atol=1e-6, rtol=0)


def test_bad_clouds_are_refused():
    with pytest.raises(ShapeError, match=r"must be \[point, 2\] .* got \[3, 3\]"):
        separability(torch.ones(3, 3))
    with pytest.raises(NonFiniteError, match="must be finite"):
        mixture(torch.tensor([[0.0, 1], [math.nan, 2]]))
    with pytest.raises(ValueRangeError, match="must differ; got 5 copies"):
        irreducibility(torch.ones(5, 2))
    with pytest.raises(ValueRangeError, match=r"between 0 and 1; got 1\.5"):
        mixture(cloud(0), epsilon=1.5)


def test_a_class_without_tokens_is_refused():
    with pytest.raises(ValueRangeError, match="got 4 classes, 1 of them empty"):
        plane_of_classes(torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2]), 4)
