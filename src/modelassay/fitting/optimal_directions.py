"""The method of optimal directions: a dictionary learnt by sparse coding and least squares in turn.

Codes that no encoder has to predict: what a dictionary could do at best, near enough.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.pursuit import orthogonal_matching_pursuit

_RIDGE = 1e-6  # keeps the atoms' system solvable where codes coincide (ours)


def learn_dictionary(
    x: Float[Tensor, "input d"],
    *,
    width: int,
    k: int,
    steps: int,
    generator: torch.Generator,
) -> Float[Tensor, "atom d"]:
    """Unit atoms by the method of optimal directions, starting from random inputs.

    A step codes all inputs by orthogonal matching pursuit and then solves for the atoms,
    ``(Z^T Z) A = Z^T x``; atoms are scaled to unit length, and atoms that nobody used are dropped.

    Args:
        x: inputs, at least `width` of them not zero.
        width: atoms to start with.
        k: atoms of every input.
        steps: rounds of coding and solving.
        generator: chooses the inputs to start from.

    Raises:
        ValueRangeError: if there are fewer inputs other than zero than atoms.

    Reference: Engan, Aase and Husøy 1999.
    """
    candidates = x[x.abs().amax(1) > 0]
    if len(candidates) < width:
        raise ValueRangeError(
            f"There must be an input other than zero for each of the {width} atoms; got "
            f"{len(candidates)}. Give more inputs, or ask for fewer atoms."
        )
    order = torch.randperm(len(candidates), generator=generator, device=generator.device)
    atoms = torch.nn.functional.normalize(candidates[order[:width].to(x.device)], dim=1)
    for _ in range(steps):
        codes = orthogonal_matching_pursuit(x, atoms, k).dense()
        gram = codes.T @ codes + _RIDGE * torch.eye(codes.shape[1]).to(codes)
        solved = torch.linalg.solve(gram, codes.T @ x)
        used = (codes != 0).any(0) & (solved.norm(dim=1) > 0)
        atoms = torch.nn.functional.normalize(solved[used], dim=1)
    return atoms
