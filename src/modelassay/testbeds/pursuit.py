"""Sparse coding by orthogonal matching pursuit, and a dictionary learnt with it.

Codes that no encoder has to predict: what a dictionary could do at best, near enough.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.codes import Codes

_RIDGE = 1e-6  # keeps the k x k and atom x atom systems solvable where atoms coincide (ours)
_BATCH = 2048  # inputs whose correlations with all atoms are held at once (ours)


def orthogonal_matching_pursuit(
    x: Float[Tensor, "input d"], atoms: Float[Tensor, "atom d"], k: int
) -> Codes:
    """Codes of at most k atoms an input: greedy choice, least squares on what was chosen.

    k times, the atom that correlates most with the residual joins, and the values of all atoms
    chosen so far are fitted anew. Values may be negative. Nothing is centred.

    Args:
        x: inputs.
        atoms: unit rows.
        k: atoms of every input.

    Raises:
        ValueRangeError: if k is not between 1 and the number of atoms.

    Reference: Pati, Rezaiifar and Krishnaprasad 1993; through Gram matrices, as in Rubinstein,
    Zibulevsky and Elad 2008.
    """
    if not 1 <= k <= len(atoms):
        raise ValueRangeError(
            f"k must be between 1 and the number of atoms, {len(atoms)}; got {k}. Choose fewer "
            "active atoms."
        )
    gram = atoms @ atoms.T
    parts = [_pursue(batch @ atoms.T, gram, k) for batch in x.split(_BATCH)]
    return Codes(
        indices=torch.cat([chosen for chosen, _ in parts]),
        values=torch.cat([values for _, values in parts]),
        width=len(atoms),
    )


def _pursue(
    correlations: Float[Tensor, "input atom"], gram: Float[Tensor, "atom atom"], k: int
) -> tuple[Tensor, Tensor]:
    chosen = torch.zeros(len(correlations), 0, dtype=torch.long, device=gram.device)
    values = correlations[:, :0]
    residual = correlations.clone()
    for _ in range(k):
        best = residual.abs().scatter(1, chosen, -1.0).argmax(1, keepdim=True)
        chosen = torch.cat([chosen, best], 1)
        system = gram[chosen[:, :, None], chosen[:, None, :]]
        system = system + _RIDGE * torch.eye(chosen.shape[1]).to(gram)
        values = torch.linalg.solve(system, correlations.gather(1, chosen))
        # What atoms correlate with in the residual, without ever forming the residual.
        residual = correlations.clone()
        for slot in range(chosen.shape[1]):
            residual -= values[:, slot, None] * gram[chosen[:, slot]]
    return chosen, values


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
