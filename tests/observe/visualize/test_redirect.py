"""Gradients past closed rectifiers, however the rectifier is written."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modelassay.observe.visualize.redirect import RedirectedRelu, rectified


def ways():
    def statement(x):
        y = x * 1
        y.relu_()
        return y

    return {
        "module": nn.ReLU(),
        "module in place": lambda x: nn.ReLU(inplace=True)(x * 1),
        "function": F.relu,
        "function in place": lambda x: F.relu(x * 1, inplace=True),
        "tensor method": lambda x: x.relu(),
        "torch": torch.relu,
        "torch in place": lambda x: torch.relu_(x * 1),
        "statement": statement,
        "relu6 module": nn.ReLU6(),
        "relu6 in place": lambda x: nn.ReLU6(inplace=True)(x * 1),
        "relu6 function": F.relu6,
    }


@pytest.mark.parametrize("way", ways())
def test_a_rectifier_that_is_closed_everywhere_gets_a_gradient(way):
    relu = ways()[way]
    x = torch.tensor([[-1.0, -2.0], [-1.0, 3.0]], requires_grad=True)
    plain = torch.autograd.grad(relu(x).sum(), x)[0]
    assert plain.tolist() == [[0, 0], [0, 1]]
    with RedirectedRelu() as mode:
        y = relu(x)
    # Minimising -y asks for a larger x: in the dead row it passes, in the living one nothing new.
    (gradient,) = torch.autograd.grad(-y.sum(), x)
    assert gradient.tolist() == [[-1, -1], [0, -1]]
    assert y.tolist() == [[0, 0], [0, 3]]
    assert mode.count == 1


def test_gradients_that_would_close_it_further_do_not_pass():
    x = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    with RedirectedRelu():
        y = F.relu(x)
    weights = torch.tensor([[1.0, -1.0]])
    assert torch.autograd.grad((y * weights).sum(), x)[0].tolist() == [[0, -1]]


def test_a_full_relu6_is_left_downwards_only():
    x = torch.tensor([[7.0, 8.0]], requires_grad=True)
    with RedirectedRelu():
        y = F.relu6(x)
    weights = torch.tensor([[1.0, -1.0]])
    assert torch.autograd.grad((y * weights).sum(), x)[0].tolist() == [[1, 0]]


def test_outside_the_context_nothing_has_changed():
    x = torch.tensor([[-1.0]], requires_grad=True)
    with RedirectedRelu():
        pass
    assert torch.autograd.grad(-F.relu(x).sum(), x)[0].item() == 0


def test_other_functions_are_left_alone():
    x = torch.tensor([[-1.0, 0.5]], requires_grad=True)
    with RedirectedRelu() as mode:
        assert torch.equal(F.hardtanh(x), x.clamp(-1, 1))
        assert torch.equal(F.gelu(x), F.gelu(x.detach()))
    assert mode.count == 0


def test_living_images_have_the_usual_gradient_everywhere():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 7, 3, 3, generator=g, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(x.shape, generator=g, dtype=torch.float64)
    ours = torch.autograd.grad((rectified(x) * weights).sum(), x)[0]
    usual = torch.autograd.grad((F.relu(x) * weights).sum(), x)[0]
    assert torch.equal(ours, usual)
