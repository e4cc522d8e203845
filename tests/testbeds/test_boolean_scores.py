import pytest
import torch

from modelassay.core.randomness import derived
from modelassay.testbeds.boolean_circuits import Gate, uniform_bits
from modelassay.testbeds.boolean_scores import always_on_f1, gate_f1, hops_kept


def bits(*, count: int = 4000, n: int = 3) -> torch.Tensor:
    return uniform_bits(count, n, derived(0, "test"))


def test_a_latent_that_is_the_gate_has_an_f1_of_one_whatever_its_sign_and_scale() -> None:
    gates = bits() > 0.5
    noise = torch.randn(4000, 5, generator=derived(1, "test"))
    values = torch.cat([noise, -3 * gates[:, :1].float() + 7, 0.1 * gates[:, 1:].float()], 1)
    assert gate_f1(values, gates).tolist() == [1, 1, 1]


def test_f1_of_a_noisy_latent_is_that_of_the_definition() -> None:
    gate = bits(n=1)[:, 0] > 0.5
    flipped = torch.rand(4000, generator=derived(2, "test")) < 0.1
    latent = gate ^ flipped
    second = slice(2000, None)
    hits = float((latent & gate)[second].sum())
    expected = 2 * hits / float(latent[second].sum() + gate[second].sum())
    assert float(gate_f1(latent.float()[:, None], gate[:, None])[0]) == pytest.approx(expected)


def test_noise_is_no_better_than_calling_everything_on() -> None:
    gates = bits() > 0.5
    noise = torch.randn(4000, 30, generator=derived(1, "test"))
    assert float(gate_f1(noise, gates).mean()) == pytest.approx(
        float(always_on_f1(gates).mean()), abs=0.02
    )


def test_a_threshold_never_splits_equal_values() -> None:
    gates = bits(n=1) > 0.5
    constant = torch.ones(4000, 1)
    assert torch.allclose(gate_f1(constant, gates), always_on_f1(gates[2000:]))


def test_a_hop_needs_both_of_its_gates() -> None:
    outputs = (Gate("and", 0, 1), Gate("or", 1, 2))
    assert hops_kept(torch.tensor([1.0, 0.99, 0.5]), outputs) == 0.5
    assert hops_kept(torch.tensor([1.0, 0.9, 1.0]), outputs) == 0
