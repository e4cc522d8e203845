"""SqueezeNet against the logits that came with its weights."""

import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from modelassay.core.errors import CorruptFileError
from modelassay.core.randomness import generator
from modelassay.subjects.vision.squeezenet import (
    SqueezeNet,
    is_squeezenet_folder,
    load_squeezenet,
)


def test_it_has_the_published_number_of_parameters():
    assert sum(parameter.numel() for parameter in SqueezeNet().parameters()) == 1_248_424


def test_it_gives_the_reference_logits(shared_data):
    folder = shared_data / "squeezenet1_0"
    images = torch.rand(2, 3, 227, 227, generator=generator(0))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        found = load_squeezenet(folder)((images - mean) / deviation)
    expected = load_file(folder / "reference.safetensors")["logits"]
    assert torch.allclose(found, expected, atol=1e-3)
    assert is_squeezenet_folder(folder)


def test_other_weights_are_refused_by_name(tmp_path):
    weights = SqueezeNet(classes=3).state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    assert load_squeezenet(tmp_path)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    del weights["features.3.squeeze.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    message = re.escape("got another 'features.3.squeeze.weight'")
    with pytest.raises(CorruptFileError, match=message):
        load_squeezenet(tmp_path)
