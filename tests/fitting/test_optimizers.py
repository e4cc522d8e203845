"""Every optimiser's step against its definition, and its state taken over by another."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from modelassay.fitting.optimizers import (
    JointOptimizer,
    Signum,
    load_moments,
    make_optimizer,
    moments_of,
)
from modelassay.fitting.options import OptimizerName

NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)
RATE = 0.01


def parameters() -> dict[str, nn.Parameter]:
    """A matrix whose columns are contiguous, one whose rows are, a vector and a threshold."""
    generator = torch.Generator().manual_seed(0)
    return {
        "W_enc": nn.Parameter(torch.randn(40, 6, generator=generator).t()),
        "W_dec": nn.Parameter(torch.randn(40, 6, generator=generator)),
        "b_enc": nn.Parameter(torch.randn(40, generator=generator)),
        "activation.threshold": nn.Parameter(torch.rand(40, generator=generator)),
    }


def groups_of(named: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    *weights, threshold = named.values()
    return [{"params": weights, "rate": 1.0}, {"params": [threshold], "rate": 3.0}]


def optimizer_of(name: OptimizerName, named: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    return make_optimizer(name, groups_of(named), learning_rate=RATE, betas=(0.9, 0.999))


def set_gradients(named: dict[str, nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in named.values():
        gradient = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.empty_like(parameter).copy_(gradient)


def values(named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in named.items()}


def test_adam_is_fused():
    (group, _) = optimizer_of("adam", parameters()).param_groups
    assert group["fused"]
    assert group["eps"] == 6.25e-10


def test_matrices_with_contiguous_columns_take_adams_steps_where_they_lie():
    start = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).t()
    turned = nn.Parameter(start.clone(memory_format=torch.preserve_format))
    plain = nn.Parameter(start.contiguous())
    ours = make_optimizer(
        "adam", [{"params": [turned], "rate": 1.0}], learning_rate=0.1, betas=(0.9, 0.99)
    )
    reference = torch.optim.Adam([plain], lr=0.1, betas=(0.9, 0.99), eps=6.25e-10)
    place = turned.data_ptr()
    for step in range(3):
        gradient = torch.randn(3, 7, generator=torch.Generator().manual_seed(step))
        turned.grad = torch.empty_like(turned).copy_(gradient)
        plain.grad = gradient
        ours.step()
        reference.step()
    torch.testing.assert_close(turned, plain)
    assert turned.data_ptr() == place
    assert turned.stride() == ours.state[turned]["exp_avg"].stride() == (1, 3)
    assert turned.grad is not None
    assert torch.equal(turned.grad, plain.grad)


def test_signum_steps_against_the_sign_of_the_momentum():
    named = parameters()
    optimizer = optimizer_of("signum", named)
    momentum = torch.zeros(40)
    for seed in range(3):
        set_gradients(named, seed)
        gradient = named["b_enc"].grad
        assert gradient is not None
        gradient[:7] = 0  # at rest
        momentum = 0.95 * momentum + 0.05 * gradient
        before = values(named)["b_enc"]
        optimizer.step()
        step = named["b_enc"].detach() - before
        assert torch.equal(step[:7], torch.zeros(7))
        assert torch.allclose(step[7:], -RATE * momentum[7:].sign(), atol=1e-7)
    assert isinstance(optimizer, Signum)


def test_muon_takes_an_orthogonal_step_of_adams_size_for_matrices_alone():
    named = parameters()
    optimizer = optimizer_of("muon", named)
    set_gradients(named, 0)
    before = values(named)
    optimizer.step()
    for name in ("W_enc", "W_dec"):
        gradient = named[name].grad
        assert gradient is not None
        step = (before[name] - named[name].detach()) / (0.2 * RATE * 40**0.5)
        # Muon's iteration in bfloat16 brings singular values to about 1 and keeps the vectors.
        singular = torch.linalg.svdvals(step)
        assert float(singular.min()) > 0.6
        assert float(singular.max()) < 1.3
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        cosine = (step * (left @ right)).sum() / step.norm() / (left @ right).norm()
        assert float(cosine) > 0.97
        assert float(step.square().mean().sqrt()) == pytest.approx(40**-0.5, rel=0.2)
    for name in ("b_enc", "activation.threshold"):
        gradient = named[name].grad
        assert gradient is not None
        # Adam's first step is the gradient's sign.
        assert torch.allclose(
            before[name] - named[name].detach(), RATE * gradient.sign(), atol=1e-6
        )


def test_parts_of_a_joint_optimiser_share_groups_and_moments():
    named = parameters()
    optimizer = optimizer_of("muon", named)
    assert isinstance(optimizer, JointOptimizer)
    before = values(named)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    set_gradients(named, 0)
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in values(named).items())
    assert optimizer.state[named["W_dec"]].keys() == {"momentum_buffer"}
    assert optimizer.state[named["b_enc"]].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert sum(group["rate"] == 3.0 for group in optimizer.param_groups) == 1
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in named.values())


def test_muon_without_vectors_or_without_matrices_is_still_an_optimiser():
    for keep in (["W_dec"], ["b_enc"]):
        named = {name: parameter for name, parameter in parameters().items() if name in keep}
        groups = [{"params": list(named.values()), "rate": 1.0}]
        optimizer = make_optimizer("muon", groups, learning_rate=RATE, betas=(0.9, 0.999))
        before = values(named)
        set_gradients(named, 1)
        optimizer.step()
        assert not torch.equal(before[keep[0]], named[keep[0]].detach())


@pytest.mark.parametrize("name", NAMES)
def test_moments_taken_over_go_on_bit_for_bit(name: OptimizerName):
    one, other = parameters(), parameters()
    first, second = optimizer_of(name, one), optimizer_of(name, other)
    for seed in range(4):
        set_gradients(one, seed)
        first.step()
    saved = {
        key: value.clone()
        for named, parameter in one.items()
        for key, value in moments_of(first, named, parameter).items()
    }
    for parameter, value in zip(other.values(), values(one).values(), strict=True):
        parameter.data.copy_(value)
    load_moments(second, other, {**saved, **values(one), "silence": torch.zeros(3)})
    for seed in range(4, 8):
        for named, optimizer in ((one, first), (other, second)):
            set_gradients(named, seed)
            optimizer.step()
    assert saved
    for key, value in values(one).items():
        assert torch.equal(value, values(other)[key]), key


def test_moments_of_a_parameter_are_not_those_of_one_whose_name_begins_alike():
    named = {"a": nn.Parameter(torch.zeros(2)), "a.b": nn.Parameter(torch.zeros(2))}
    groups = [{"params": list(named.values()), "rate": 1.0}]
    optimizer = make_optimizer("signum", groups, learning_rate=RATE, betas=(0.9, 0.999))
    tensors = {"a": torch.ones(2), "a.b": torch.ones(2), "a.b.momentum": torch.full((2,), 5.0)}
    load_moments(optimizer, named, tensors)
    assert optimizer.state[named["a"]] == {}
    assert float(optimizer.state[named["a.b"]]["momentum"][0]) == 5.0
