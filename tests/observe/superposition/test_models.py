"""Gradients against autograd, and what rescaling leaves alone."""

import pytest
import torch

from modelassay.core.randomness import derived
from modelassay.observe.superposition.data import FeatureData
from modelassay.observe.superposition.models import ToyModels, random_models

SHAPES = [
    {"tied": tied, "hidden_relu": hidden, "output_relu": output}
    for tied in (True, False)
    for hidden in (True, False)
    for output in (True, False)
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_are_those_of_autograd(shape: dict[str, bool], weighted: bool):
    generator = derived(0, "gradients")
    models = random_models(3, 6, 4, generator, **shape)
    data = FeatureData(density=torch.full((3, 6), 0.5), signed=True)
    inputs = data.sample(40, generator)
    targets = inputs.abs()
    importance = torch.rand(3, 6, generator=generator)
    weights = torch.rand(3, 40, generator=generator) if weighted else None
    found, loss = models.gradients(inputs, targets, importance, weights)
    leaves = {name: value.clone().requires_grad_() for name, value in models.parameters().items()}
    same = ToyModels(
        encoder=leaves["encoder"],
        bias=leaves["bias"],
        decoder=leaves.get("decoder"),
        hidden_relu=models.hidden_relu,
        output_relu=models.output_relu,
    )
    expected = same.loss(inputs, targets, importance, weights)
    expected.sum().backward()
    torch.testing.assert_close(loss, expected.detach())
    for name, leaf in leaves.items():
        torch.testing.assert_close(found[name], leaf.grad, msg=name)


def test_rescaled_models_are_the_same_functions():
    generator = derived(1, "rescaled")
    models = random_models(2, 5, 7, generator, tied=False, hidden_relu=True)
    inputs = torch.randn(2, 30, 5, generator=generator)
    rescaled = models.rescaled()
    torch.testing.assert_close(rescaled(inputs), models(inputs))
    torch.testing.assert_close(rescaled.encoder.abs().amax(2), torch.ones(2, 7))
