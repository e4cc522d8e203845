"""Tuning curves of filters that are known, and their measures in closed form."""

import math

import pytest
import torch

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.observe.circuits.tuning import Responses, rank_p, responses, selectivity, tuning
from modelassay.observe.stimuli import StimulusAxis, angles, dots, edges, gratings
from modelassay.observe.visualize.image_input import UNIT
from tests.observe.circuits.models import filters

ORIENTATION = StimulusAxis(name="orientation", values=angles(8, math.pi), period=math.pi)


def gabors(degrees, side=11, frequency=0.2):
    place = torch.arange(side) - (side - 1) / 2
    x, y = place[None, :], -place[:, None]
    found = []
    for degree in degrees:
        angle = math.radians(degree)
        across = x * math.cos(angle) + y * math.sin(angle)
        wave = torch.cos(2 * math.pi * frequency * across) * torch.exp(-(x**2 + y**2) / 12)
        found.append(wave - wave.mean())
    return torch.stack(found)


def responding(values, axes=(ORIENTATION,)):
    return Responses(layer="x", values=values, axes=axes, resting=torch.zeros(len(values)))


def test_selectivity_has_its_closed_forms():
    one, flat, two = torch.zeros(8), torch.ones(8), torch.zeros(8)
    one[3] = 2.0
    two[0], two[4] = 1.0, 1.0  # at right angles: nothing is preferred
    turns = torch.tensor([math.cos(2 * value) for value in ORIENTATION.values])
    cosine = 1 + 0.5 * turns  # |Σ R e^{2iθ}| / Σ R = 0.5 / 2
    found = selectivity(torch.stack([one, flat, two, cosine]), ORIENTATION)
    assert torch.allclose(found, torch.tensor([1.0, 0.0, 0.0, 0.25]), atol=1e-6)
    size = StimulusAxis(name="radius", values=(1.0, 2.0, 3.0))
    assert float(selectivity(torch.tensor([[1.0, 3.0, 2.0]]), size)) == 0.5


def test_a_unit_that_is_only_inhibited_least_by_one_orientation_is_hardly_selective():
    curve = torch.full((1, 8), -1.0)
    curve[0, 2] = 0.01
    assert float(selectivity(curve, ORIENTATION)) < 0.15


def test_preferred_values_and_bandwidths_are_interpolated():
    step = math.pi / 8
    curve = torch.tensor([[0.0, 0.0, 1.0, 4.0, 1.0, 0.0, 0.0, 0.0]])
    found = tuning(responding(curve), "orientation")
    assert float(found.preferred) == pytest.approx(3 * step, abs=1e-6)
    assert float(found.bandwidth) == pytest.approx(2 / 3 * step, rel=1e-6)
    flat = tuning(responding(torch.ones(1, 8)), "orientation")
    assert bool(flat.bandwidth.isnan().all())


def test_gabor_filters_prefer_their_own_orientation():
    module = filters(gabors([0, 30, 75, 150]))
    found = responses(
        module, "1", gratings(48, orientations=24, frequencies=[0.1, 0.2, 0.3]), image_input=UNIT
    )
    tuned = tuning(found, "orientation", best=["frequency"])
    preferred = tuned.preferred.rad2deg()
    distance = (preferred - torch.tensor([0.0, 30.0, 75.0, 150.0]) + 90) % 180 - 90
    assert float(distance.abs().max()) < 2
    assert float(tuned.selectivity.min()) > 0.5
    assert float(tuned.p_value.max()) == pytest.approx(1 / 200)
    frequency = tuning(found, "frequency", best=["orientation"])
    assert torch.allclose(frequency.preferred, torch.tensor(0.2).expand(4))


def test_an_edge_filter_prefers_a_side_and_a_blob_no_orientation():
    step = torch.ones(7, 7)
    step[:, :3], step[:, 3] = -1, 0
    disc = gabors([0])[0] * 0
    place = torch.arange(11) - 5.0
    square = place[:, None] ** 2 + place[None] ** 2
    disc = torch.exp(-square / 4) / (4 * math.pi) - torch.exp(-square / 12) / (12 * math.pi)
    side = responses(filters(step[None]), "1", edges(32), pooling="max", image_input=UNIT)
    found = tuning(side, "direction")
    assert float(found.preferred) % (2 * math.pi) == pytest.approx(0, abs=0.05)
    assert float(found.selectivity) > 0.3
    coarse = gratings(32, orientations=8, frequencies=[0.1, 0.2])
    blob = responses(filters(disc[None]), "1", coarse, image_input=UNIT)
    assert float(tuning(blob, "orientation", best=["frequency"]).selectivity) < 0.05


def test_responses_count_from_uniform_grey():
    found = responses(filters(torch.ones(1, 3, 3)), "1", dots(16, radii=[3.0]), image_input=UNIT)
    assert float(found.resting) == pytest.approx(4.5)
    assert float(found.values[0, 0, 0, 0]) > 0
    assert float(found.values[0, 0, 1, 0]) < 0


def test_noise_is_not_consistent_over_repetitions():
    axes = (ORIENTATION, StimulusAxis(name="phase", values=(0.0, 1.0, 2.0, 3.0)))
    noise = torch.rand(200, 8, 4, generator=torch.Generator().manual_seed(0))
    p = tuning(responding(noise, axes), "orientation").p_value
    assert 0.0 < float((p <= 0.05).float().mean()) < 0.11


def test_a_dead_channel_has_no_tuning():
    module = filters(gabors([0, 90]), bias=-1e6)
    found = responses(module, "1", gratings(32, frequencies=[0.2]), image_input=UNIT)
    assert found.silent == (0, 1)
    tuned = tuning(found, "orientation")
    for values in (tuned.selectivity, tuned.preferred, tuned.bandwidth, tuned.p_value):
        assert bool(values.isnan().all())


def test_axes_that_are_not_there_or_too_short_are_refused():
    found = responding(torch.ones(1, 8))
    with pytest.raises(UnknownNameError, match="An axis of the stimuli must be one of"):
        tuning(found, "phase")
    with pytest.raises(ValueRangeError, match="must have 3 or more values"):
        tuning(found, "orientation", best=["orientation"])


def test_ranks_against_a_null_never_reach_0():
    own, null = torch.tensor([0.5, 2.0, torch.nan]), torch.tensor([0.1, 0.6, torch.nan, 0.7])
    assert rank_p(own, null).tolist() == [0.75, 0.25, 1.0]
