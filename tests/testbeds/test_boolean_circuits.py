import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.testbeds.boolean_circuits import (
    Circuit,
    Gate,
    affine,
    all_bits,
    fused,
    gadget_layer,
    random_circuit,
    random_gates,
    uniform_bits,
)

GROUPS = torch.arange(8) // 2


def test_gates_are_their_truth_tables() -> None:
    bits = all_bits(2)
    assert bits.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
    assert Gate("and", 0, 1).of(bits).tolist() == [0, 0, 0, 1]
    assert Gate("or", 0, 1).of(bits).tolist() == [0, 1, 1, 1]
    assert Gate("xor", 0, 1).of(bits).tolist() == [0, 1, 1, 0]


def test_the_gadgets_are_exact_on_all_inputs() -> None:
    gates = (Gate("and", 0, 1), Gate("or", 1, 2), Gate("xor", 0, 2))
    bits = all_bits(3)
    expected = torch.stack([gate.of(bits) for gate in gates], 1)
    for keep in (False, True):
        inner, outer = gadget_layer(gates, 3, keep=keep)
        found = outer(inner(bits).relu())
        assert torch.equal(found, torch.cat([bits, expected], 1) if keep else expected)


def test_a_circuit_evaluates_layer_after_layer() -> None:
    circuit = Circuit(
        n_bits=2, layers=((Gate("xor", 0, 1), Gate("or", 0, 1)), (Gate("and", 2, 3),))
    )
    assert circuit.wires_of_layer(1) == range(4, 5)
    assert circuit.evaluate(all_bits(2))[:, 4].tolist() == [0, 1, 1, 0]


def test_drawn_gates_vary_and_differ_and_stay_within_no_group() -> None:
    circuit = random_circuit(8, (6, 6), GROUPS, derived(0, "test"))
    assert all(GROUPS[gate.first] != GROUPS[gate.second] for gate in circuit.layers[0])
    wires = circuit.evaluate(all_bits(8))
    shares = wires[:, 8:].mean(0)
    assert float(shares.min()) > 0.1
    assert float(shares.max()) < 0.8
    alike = torch.corrcoef(wires.T).abs() - torch.eye(wires.shape[1])
    assert float(alike.max()) < 0.75
    assert circuit == random_circuit(8, (6, 6), GROUPS, derived(0, "test"))
    assert circuit != random_circuit(8, (6, 6), GROUPS, derived(1, "test"))


def test_gates_on_a_ring_use_every_wire() -> None:
    gates = random_gates(5, derived(0, "test"))
    assert {gate.first for gate in gates} == {gate.second for gate in gates} == set(range(5))


def test_maps_fuse_into_one() -> None:
    generator = derived(0, "test")
    maps = [
        affine(torch.randn(a, b, generator=generator), torch.randn(a, generator=generator))
        for a, b in ((4, 3), (2, 4))
    ]
    inputs = uniform_bits(10, 3, generator)
    assert torch.allclose(fused(*maps)(inputs), maps[1](maps[0](inputs)), atol=1e-5)


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueRangeError, match="wires of earlier layers, 0 to 1; got Gate"):
        Circuit(n_bits=2, layers=((Gate("and", 0, 2),),))
    with pytest.raises(ShapeError, match=r"bits must be \[input, 2\]; got \[3, 5\]"):
        Circuit(n_bits=2, layers=()).evaluate(torch.ones(3, 5))
    with pytest.raises(ValueRangeError, match="gates that differ; got 2000 draws from 2 wires"):
        random_circuit(2, (9,), torch.arange(2), derived(0, "test"))
