import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.testbeds.pursuit import learn_dictionary, orthogonal_matching_pursuit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(rows: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, d, generator=generator(seed)), dim=1)


def test_sparse_inputs_are_coded_exactly_over_incoherent_atoms() -> None:
    atoms = unit(80, 60)
    rows = torch.arange(200)[:, None]
    places = torch.rand(200, 80, generator=generator(1)).topk(2, dim=1).indices
    codes = torch.zeros(200, 80)
    codes[rows, places] = 1 + torch.rand(200, 2, generator=generator(2))
    codes[:50] *= -1  # values of either sign
    found = orthogonal_matching_pursuit(codes @ atoms, atoms, 2).dense()
    exact = (found - codes).abs().amax(1) < 1e-3
    assert float(exact.float().mean()) > 0.95  # greedy: a few supports may be missed


def test_the_residual_is_orthogonal_to_the_chosen_atoms() -> None:
    atoms, x = unit(30, 12), torch.randn(40, 12, generator=generator(3))
    codes = orthogonal_matching_pursuit(x, atoms, 3)
    residual = x - codes.dense() @ atoms
    assert (residual @ atoms.T).gather(1, codes.indices).abs().max() < 1e-4
    assert all(len(set(row.tolist())) == 3 for row in codes.indices)


def test_as_many_atoms_as_dimensions_leave_nothing() -> None:
    atoms, x = unit(20, 6), torch.randn(25, 6, generator=generator(4))
    errors = [
        float((x - orthogonal_matching_pursuit(x, atoms, k).dense() @ atoms).norm())
        for k in range(1, 7)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05 * float(x.norm())


def test_codes_do_not_depend_on_the_batch() -> None:
    atoms, x = unit(16, 8), torch.randn(5000, 8, generator=generator(5))
    whole = orthogonal_matching_pursuit(x, atoms, 2).dense()
    parts = torch.cat([orthogonal_matching_pursuit(p, atoms, 2).dense() for p in x.split(700)])
    assert torch.allclose(whole, parts, atol=1e-5)


def test_a_planted_dictionary_is_learnt() -> None:
    planted = unit(24, 16, 6)
    places = torch.rand(3000, 24, generator=generator(7)).topk(2, dim=1).indices
    values = 0.5 + torch.rand(3000, 2, generator=generator(8))
    x = torch.zeros(3000, 24).scatter(1, places, values) @ planted
    learnt = learn_dictionary(x, width=36, k=2, steps=15, generator=generator(9))
    best = (planted @ learnt.T).abs().amax(1)
    assert float(best.mean()) > 0.9
    start = learn_dictionary(x, width=36, k=2, steps=0, generator=generator(9))
    assert float(best.mean()) > float((planted @ start.T).abs().amax(1).mean()) + 0.05


def test_k_and_the_number_of_inputs_are_checked() -> None:
    with pytest.raises(ValueRangeError, match="k must be between 1 and the number of atoms, 4"):
        orthogonal_matching_pursuit(torch.randn(3, 2), unit(4, 2), 5)
    with pytest.raises(ValueRangeError, match="for each of the 3 atoms; got 2"):
        learn_dictionary(torch.eye(4)[:2], width=3, k=1, steps=1, generator=generator())
