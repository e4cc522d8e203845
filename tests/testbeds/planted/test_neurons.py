"""Added neurons do what they say, and silent ones nothing."""

import copy
from typing import Any

import torch
from torch.nn.functional import silu

from modelassay.core.randomness import generator
from modelassay.testbeds.planted.neurons import NeuronRows, with_neurons
from tests.testbeds.planted.test_widening import biased_llama

TOKENS = torch.randint(31, (2, 9), generator=generator(1))


def rows(count: int, scale: float) -> NeuronRows:
    gate, up, down = scale * torch.randn(3, count, 16, generator=generator(2))
    return NeuronRows(gate=gate, up=up, down=down)


def test_an_added_neuron_adds_its_output():
    model, added = biased_llama(), rows(3, 0.5)
    mlp: Any = copy.deepcopy(model.model.layers[0].mlp)
    grown: Any = with_neurons(model, {0: added})
    y = torch.randn(5, 16, generator=generator(3))
    expected = mlp(y) + (silu(y @ added.gate.T) * (y @ added.up.T)) @ added.down
    assert torch.allclose(grown.model.layers[0].mlp(y), expected, atol=1e-5)


def test_blocks_without_new_neurons_stay_as_they_were():
    model = biased_llama()
    grown = with_neurons(model, {0: rows(3, 0.0)})
    assert grown.config.intermediate_size == 23
    assert model.config.intermediate_size == 20
    assert torch.allclose(grown(TOKENS).logits, model(TOKENS).logits, atol=1e-6)
