"""On a trained network: what optimisation reaches lies above every photograph."""

from dataclasses import replace

import torch

from modelassay.observe.visualize.colour import LUCID_COLOURS, colour_axes
from modelassay.observe.visualize.render import measure, render
from modelassay.observe.visualize.settings import DEFAULT
from modelassay.observe.visualize.targets import Channel, Neuron
from modelassay.subjects.vision.images import image_files, read_image
from modelassay.subjects.vision.squeezenet import load_squeezenet


def photographs(shared_data):
    files = image_files(shared_data / "restricted_imagenet_sample" / "images")
    return torch.stack([read_image(path) for path in files[::5]])


def test_an_optimised_image_has_more_of_its_target_than_any_photograph(shared_data):
    module = load_squeezenet(shared_data / "squeezenet1_0")
    targets = [Channel("features.5", 3), Neuron("features.9", 185), Channel("classifier.1", 340)]
    natural = measure(module, targets, photographs(shared_data)).max(1).values
    found = render(module, targets, settings=replace(DEFAULT, steps=32))
    assert not bool(found.dead.any())
    assert bool((found.objective > natural).all())


def test_colours_of_photographs_are_the_published_ones(shared_data):
    # lucid's table is rounded to two digits, and its sign of an axis is arbitrary.
    axes = torch.tensor(colour_axes(photographs(shared_data)).rows)
    published = torch.tensor(LUCID_COLOURS.rows)
    same = (axes * published).sum(0).sign()
    assert torch.allclose(axes * same, published, atol=0.04)
