"""The oracle's latents are the features, and labels follow them wherever they stand."""

import pytest
import torch

from modelassay.activations.harvest import Harvest
from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.testbeds.planted.arms import PlantedPair
from modelassay.testbeds.planted.labels import label_latents
from modelassay.testbeds.planted.oracle import oracle_dictionary


def test_the_oracle_finds_every_feature_and_reconstructs(pair: PlantedPair, fit_text: Harvest):
    x = fit_text.activations()
    oracle = oracle_dictionary(pair)
    codes = oracle.encode(x)
    labels = label_latents(codes, pair, x)
    n = len(pair.plan)
    assert torch.equal(labels.labelled, torch.arange(n))
    assert torch.equal(labels.feature[:n], torch.arange(n))
    assert labels.best.min() > 0.99
    assert torch.equal(codes.dense()[:, :n] > 0, pair.planted.fires(x))
    for arm in (0, 1):
        assert torch.equal(labels.of_the_model(pair.read[arm]), pair.read[arm])
    error = (oracle.decode(codes) - x).square().sum() / x.square().sum()
    assert error < 1e-4


def test_labels_follow_latents_that_move_turn_and_grow(pair: PlantedPair, fit_text: Harvest):
    x = fit_text.activations()
    values = pair.planted.values(x)
    order = torch.randperm(len(pair.plan), generator=generator(0))
    noise = torch.rand(len(x), 3, generator=generator(1))
    moved = Codes.from_dense(torch.cat([noise, -3 * values[:, order]], dim=1))
    labels = label_latents(moved, pair, x)
    assert labels.feature.tolist() == [-1, -1, -1, *order.tolist()]
    assert bool(labels.correlation[:3].isnan().all())


def test_of_two_latents_that_are_one_feature_the_better_is_it(pair: PlantedPair, fit_text: Harvest):
    x = fit_text.activations()
    value = pair.planted.values(x)[:, :1]
    worse = value + 0.3 * value.std() * torch.randn(value.shape, generator=generator(2))
    labels = label_latents(Codes.from_dense(torch.cat([worse, value], dim=1)), pair, x)
    assert labels.feature.tolist() == [-1, 0]


def test_random_codes_are_no_feature(pair: PlantedPair, fit_text: Harvest):
    x = fit_text.activations()
    codes = Codes.from_dense(torch.rand(len(x), 20, generator=generator(3)))
    assert len(label_latents(codes, pair, x).labelled) == 0


def test_codes_of_other_tokens_are_refused(pair: PlantedPair, fit_text: Harvest):
    codes = Codes.from_dense(torch.ones(4, 2))
    with pytest.raises(ShapeError, match="of the same tokens; got 4 and"):
        label_latents(codes, pair, fit_text.activations())
