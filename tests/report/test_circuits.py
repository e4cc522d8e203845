"""Drawings of circuits."""

import xml.etree.ElementTree as ET

import torch

from modelassay.core.randomness import generator
from modelassay.observe.circuits.expansion import expanded_weights
from modelassay.observe.circuits.tuning import responses, tuning
from modelassay.observe.circuits.unit import unit_circuits, weight_icons
from modelassay.observe.stimuli import gratings
from modelassay.observe.visualize.image_input import UNIT
from modelassay.report.circuit_pictures import enlarged, graph, polar, signed
from tests.observe.circuits.models import chain, filters

SVG = "{http://www.w3.org/2000/svg}"


def test_signs_have_colours_and_zero_is_white():
    drawn = signed(torch.tensor([[1.0, -1.0, 0.0, 5.0]]), 1.0)
    amber, blue, white, clipped = drawn[:, 0].T
    assert amber[0] > amber[2]
    assert blue[2] > blue[0]
    assert white.tolist() == [1, 1, 1]
    assert torch.equal(clipped, amber)
    assert torch.equal(signed(torch.zeros(2, 2), 0.0), torch.ones(3, 2, 2))


def test_pixels_are_enlarged_whole():
    image = torch.rand(3, 3, 3, generator=generator(0))
    assert enlarged(image, 10).shape == (3, 9, 9)
    assert torch.equal(enlarged(image, 10)[:, ::3, ::3], image)
    assert torch.equal(enlarged(image, 1), image)


def test_a_graph_has_every_shown_input_its_kernel_and_the_unit():
    module = chain()
    weights = expanded_weights(module, "1", "2", [3])
    (circuit,) = unit_circuits(weights, weight_icons(module), count=2)
    tree = ET.fromstring(graph(circuit))
    shown = [*circuit.excitatory, *circuit.inhibitory]
    assert len(tree.findall(f"{SVG}image")) == 2 * len(shown) + 1
    words = [each.text for each in tree.findall(f"{SVG}text")]
    assert {str(each.channel) for each in shown} <= set(words)
    assert "channel 3" in words


def test_a_unit_without_weights_is_drawn_alone():
    module = chain()
    with torch.no_grad():
        module[2].weight[1] = 0
    weights = expanded_weights(module, "1", "2", [1])
    (circuit,) = unit_circuits(weights, weight_icons(module))
    assert len(ET.fromstring(graph(circuit)).findall(f"{SVG}image")) == 1


def test_tuning_curves_are_drawn_for_the_chosen_channels():
    module = filters(torch.randn(4, 5, 5, generator=generator(1)))
    found = responses(
        module, "1", gratings(24, orientations=6, frequencies=[0.2]), image_input=UNIT
    )
    tree = ET.fromstring(polar(tuning(found, "orientation"), [2, 0], "Curves"))
    assert len(tree.findall(f"{SVG}path")) == 2
    assert len(tree.findall(f"{SVG}circle")) == 4
