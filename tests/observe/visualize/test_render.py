"""Optimisation against answers that are known, and what it promises about seeds and batches."""

from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn

from modelassay.core.errors import (
    NonFiniteError,
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.files import read_json, read_tensors
from modelassay.core.randomness import generator
from modelassay.observe.visualize.between_images import Alignment, FacetSimilarity
from modelassay.observe.visualize.colour import LUCID_COLOURS, RGB
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_input import GREY, UNIT, ImageInput
from modelassay.observe.visualize.magnitude_constrained import MagnitudeConstrained
from modelassay.observe.visualize.parametrisation import FOURIER, Pixels
from modelassay.observe.visualize.render import measure, render
from modelassay.observe.visualize.settings import Settings, preset
from modelassay.observe.visualize.targets import Channel, Layer, Neuron
from modelassay.observe.visualize.transforms import Crops
from tests.observe.visualize.models import (
    QUICK,
    Functional,
    Tokens,
    convolutional,
    linear_filter,
    silent,
)

FREE = Settings(size=(16, 16), steps=100, transforms=(), learning_rate=0.1)


def test_a_linear_model_is_shown_its_own_filter():
    module = linear_filter()
    filters = module[0].weight.detach()
    pixels = Pixels(colours=RGB)
    found = render(
        module, [Channel("0", 0), Channel("0", 1)], settings=replace(FREE, parametrisation=pixels),
        image_input=UNIT,
    )  # fmt: skip
    for image, weights in zip(found.images, filters, strict=True):
        # The optimum is white where the filter is positive and black where it is negative.
        assert torch.equal(image > 0.5, weights > 0)
        best = weights.clamp_min(0).sum()
        at_image, at_grey = (image * weights).sum(), 0.5 * weights.sum()
        assert float((at_image - at_grey) / (best - at_grey)) > 0.9


def test_the_natural_coordinates_find_the_filters_direction_too():
    module = linear_filter()
    with torch.no_grad():
        # A smooth filter, as those of image models are.
        smooth = FOURIER.signal(FOURIER.start((16, 16), [generator(0)] * 2), (16, 16))
        module[0].weight.copy_(LUCID_COLOURS.correlated(smooth))
    found = render(module, Channel("0", 0), settings=FREE, image_input=UNIT)
    weights = module[0].weight[0].detach()
    best, grey = weights.clamp_min(0).sum(), 0.5 * weights.sum()
    assert float(((found.images[0] * weights).sum() - grey) / (best - grey)) > 0.85


def test_the_objective_is_that_of_the_clean_image_and_rises():
    module = convolutional()
    targets = [Channel("3", 1), Neuron("2", 4), Layer("1")]
    found = render(module, targets, settings=QUICK, image_input=UNIT)
    again = measure(module, targets, found.images, image_input=UNIT).diagonal()
    assert torch.allclose(found.objective, again, rtol=1e-5)
    assert found.trace.shape == (3, 12)
    assert bool((found.trace[:, -1] > found.trace[:, 0]).all())
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1


def test_one_seed_gives_one_result_bit_for_bit():
    module = convolutional()
    one, two, other = (
        render(module, Channel("3", 1), settings=QUICK, image_input=UNIT, seed=seed)
        for seed in (4, 4, 5)
    )
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.trace, two.trace)
    assert not torch.equal(one.images, other.images)


def test_an_image_does_not_depend_on_what_stands_beside_it():
    module = convolutional()
    alone = render(module, Channel("3", 2), settings=QUICK, image_input=UNIT)
    beside = render(
        module, [Channel("3", 0), Channel("3", 2), Layer("1")], settings=QUICK, image_input=UNIT
    )
    assert torch.allclose(alone.images[0], beside.images[1], atol=1e-4)


def test_a_dead_start_is_left_by_redirected_gradients_alone():
    module = silent(bias=-0.4)
    middle = Neuron("1", 0)
    settings = replace(QUICK, steps=30)
    shown = render(module, middle, settings=settings, image_input=UNIT)
    stuck = render(module, middle, settings=replace(settings, redirect_steps=0), image_input=UNIT)
    assert shown.trace[0, 0] == 0
    assert shown.objective[0] > 0
    assert not shown.dead[0]
    assert shown.redirected == 1
    assert stuck.objective[0] == 0
    assert stuck.dead[0]
    assert "exactly 0 on the image at every step" in stuck.notes(0)[0]


def test_a_unit_that_cannot_be_reached_is_called_dead():
    found = render(silent(bias=-1e6), Channel("1", 0), settings=QUICK, image_input=UNIT)
    assert found.dead.tolist() == [True]


def test_rectifiers_in_place_change_neither_images_nor_what_a_layer_is():
    targets = [Channel("0", 1), Channel("2", 2), Channel("0", 0) + Channel("3", 1)]
    plain, in_place = (
        render(convolutional(in_place=flag), targets, settings=QUICK, image_input=UNIT)
        for flag in (False, True)
    )
    assert torch.allclose(plain.images, in_place.images, atol=1e-5)
    # A convolution's output is read before the rectifier overwrites it.
    x = torch.rand(1, 3, 24, 24, generator=generator(0))
    with torch.no_grad():
        maps = feature_maps(convolutional(in_place=True), ["0", "3"], x)
        assert float(maps["0"].min()) < 0
        assert torch.equal(maps["0"], convolutional()[0](x))


def test_the_model_is_left_as_it_was():
    module = convolutional(in_place=True).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    render(module, Channel("3", 0), settings=QUICK, image_input=UNIT)
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())


def test_functions_are_redirected_and_models_without_rectifiers_say_so():
    assert (
        render(
            nn.Sequential(OrderedDict(inner=Functional())), Channel("inner", 0), settings=QUICK
        ).redirected
        == 3
    )
    found = render(Functional(), Channel("first", 0), settings=QUICK)
    assert found.redirected == 0  # it stops before the first rectifier
    tokens = ImageInput(size=(16, 16))
    assert render(Tokens(), Channel("head", 3), settings=QUICK, image_input=tokens).redirected == 0


def test_layers_of_tokens_and_logits_are_targets_too():
    tokens = ImageInput(size=(16, 16))
    targets = [Channel("block", 3), Neuron("block", 3, (2, 0)), Channel("head", 4)]
    found = render(Tokens(), targets, settings=QUICK, image_input=tokens)
    assert bool((found.trace[:, -1] > found.trace[:, 0]).all())
    with pytest.raises(ShapeError, match=r"must run on images of \[1, 3, 24, 24\]"):
        render(Tokens(), targets, settings=QUICK)
    with pytest.raises(ValueRangeError, match="within 16 rows and 1 columns"):
        render(Tokens(), Neuron("block", 3, (16, 0)), settings=QUICK, image_input=tokens)


@pytest.mark.parametrize("size", [(23, 31), (24, 17)])
def test_sides_may_be_odd_and_different(size):
    found = render(
        convolutional(), Channel("3", 0), settings=replace(QUICK, size=size), image_input=UNIT
    )
    assert found.images.shape == (1, 3, *size)
    assert found.transparency.shape == (1, *size)


def test_a_grey_model_gives_grey_images():
    module = nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU()).eval()
    found = render(module, Channel("1", 0), settings=QUICK, image_input=GREY)
    assert torch.equal(found.images[:, 0], found.images[:, 2])
    with pytest.raises(ShapeError, match="Set ImageInput's size and channels"):
        render(module, Channel("1", 0), settings=QUICK, image_input=UNIT)


def test_facets_differ_more_when_their_similarity_is_subtracted():
    module = convolutional()
    settings = replace(QUICK, steps=40)
    target = Channel("3", 1)
    plain = render(module, target, settings=settings, facets=3, image_input=UNIT)
    apart = -100 * FacetSimilarity("2")
    spread = render(
        module, target, settings=settings, facets=3, between_facets=apart, image_input=UNIT
    )
    alone = measure(module, [target], spread.images, image_input=UNIT)[0]
    assert torch.allclose(spread.objective, alone)  # what holds them apart is no part of it
    assert plain.names == ("3 channel 1",) * 3
    alike = [render_similarity(module, found.images) for found in (plain, spread)]
    assert alike[1] < alike[0]


def render_similarity(module, images):
    with torch.no_grad():
        a = feature_maps(module, ["2"], images)["2"].flatten(2)
    gram = (a @ a.transpose(1, 2)).flatten(1)
    unit = gram / gram.norm(dim=1, keepdim=True)
    return float((unit @ unit.T).triu(1).sum())


def test_alignment_brings_neighbours_together():
    module = convolutional()
    targets = [Channel("3", i) for i in range(4)]

    def roughness(together):
        found = render(
            module, targets, settings=replace(QUICK, steps=40), image_input=UNIT, together=together
        )
        return float(found.images.diff(dim=0).square().mean())

    assert roughness(1e4 * Alignment("2")) < roughness(None)


def test_magnitude_constrained_images_rise_and_mark_where_they_matter():
    settings = replace(
        preset("maco", 32, 25), transforms=(Crops(count=4, size=24),), learning_rate=0.3
    )
    assert isinstance(settings.parametrisation, MagnitudeConstrained)
    # The middle neuron sees the middle of each crop.
    found = render(convolutional(), Channel("3", 1), settings=settings, image_input=UNIT)
    assert float(found.trace[0, -5:].mean()) > float(found.trace[0, :5].mean())
    assert float(found.transparency.min()) >= 0
    visible = found.visible()
    assert visible.shape == (1, 4, 32, 32)
    assert float(visible[:, 3].max()) == 1
    assert float((visible[:, 3] == 1).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_transparency_is_zero_where_the_target_does_not_look():
    settings = replace(QUICK, transforms=())
    found = render(convolutional(), Neuron("0", 0, (0, 0)), settings=settings, image_input=UNIT)
    assert float(found.transparency[0, :5, :5].min()) > 0
    assert float(found.transparency[0, 5:].max()) == 0


def test_a_result_is_written_whole(tmp_path):
    found = render(convolutional(), [Channel("3", 0), Layer("1")], settings=QUICK, image_input=UNIT)
    found.save(tmp_path / "out")
    tensors = read_tensors(tmp_path / "out" / "images.safetensors")
    assert torch.equal(tensors["images"], found.images)
    described = read_json(tmp_path / "out" / "images.json")
    assert described["names"] == ["3 channel 0", "1 all channels"]
    assert described["settings"]["steps"] == 12


def test_mistakes_are_named():
    module = convolutional()
    with pytest.raises(UnknownNameError, match=r"A layer must be one of: .*; got '9'"):
        render(module, Channel("9", 0), settings=QUICK)
    with pytest.raises(ValueRangeError, match=r"must be in 0 … 5; got 6"):
        render(module, Channel("3", 6), settings=QUICK)
    with pytest.raises(ValueRangeError, match="at least one target"):
        render(module, [], settings=QUICK)
    with pytest.raises(UnsupportedModelError, match="'again', which ran 2 times"):
        render(Functional(), Channel("again", 0), settings=QUICK)
    with pytest.raises(UnsupportedModelError, match="'idle', which ran 0 times"):
        render(Functional(), Channel("idle", 0), settings=QUICK)
    with pytest.raises(UnknownNameError, match="End of a layer"):
        render(module, Channel("3:middle", 0), settings=QUICK)
    with pytest.raises(ShapeError, match=r"start must be 1 or 1 images of \[24, 24\]"):
        render(module, Channel("3", 0), settings=QUICK, start=torch.rand(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="Repeat the grey channel"):
        render(module, Channel("3", 0), settings=QUICK, start=torch.rand(1, 1, 24, 24))
    with pytest.raises(ValueRangeError, match=r"values in 0 … 1; got 0 … 255"):
        measure(module, [Channel("3", 0)], torch.tensor([0.0, 255.0]).expand(1, 3, 4, 2))
    with pytest.raises(ValueRangeError, match="at least 2 pixels"):
        Settings(size=(1, 1))
    with pytest.raises(UnknownNameError, match="Did you mean 'lucid'"):
        preset("lucit")


def test_a_model_that_overflows_is_refused():
    module = convolutional()
    with torch.no_grad():
        module[0].weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="NaN or Inf at step 0"):
        render(module, Channel("0", 0), settings=QUICK, image_input=UNIT)
