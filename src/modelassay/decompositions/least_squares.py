"""Least squares on supports that differ from token to token, of either sign or non-negative.

Everything is in normal equations, one small system a token: with the chosen atoms as the rows of A,
``gram = A A^T`` and ``moment = A x``. A slot without an atom has a row and a column of zeros. The
systems are float64, whose rounding leaves their squared condition number room.
"""

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import check_width

_RIDGE = 1e-12  # of an atom's squared length: keeps systems solvable where atoms coincide (ours)
_FLAT = 1e-11  # of the moments' length: a gradient below this is rounding (ours)
_ROUNDS_A_SLOT = 6  # of the active-set method, at most; two or three are usual (ours)
CHUNK_ENTRIES = 2**23  # numbers held at once: the chosen atoms of some tokens (ours)


def solve(
    gram: Float64[Tensor, "token slot slot"],
    moment: Float64[Tensor, "token slot"],
    among: Bool[Tensor, "token slot"] | None = None,
) -> Float64[Tensor, "token slot"]:
    """The values that minimise ``|x - z A|²`` for every token, zero outside of some slots.

    Args:
        gram: inner products of the chosen atoms.
        moment: inner products of the chosen atoms and x.
        among: the slots that may have a value; None for all.
    """
    filled = gram.diagonal(dim1=1, dim2=2) > 0
    filled = filled if among is None else filled & among
    system = gram * (filled.unsqueeze(1) & filled.unsqueeze(2))
    diagonal = system.diagonal(dim1=1, dim2=2)
    diagonal.mul_(1 + _RIDGE).add_((~filled).to(gram))
    factor = torch.linalg.cholesky_ex(system).L
    return torch.cholesky_solve((moment * filled).unsqueeze(2), factor).squeeze(2)


def nonnegative_least_squares(
    gram: Float64[Tensor, "token slot slot"],
    moment: Float64[Tensor, "token slot"],
    start: Float64[Tensor, "token slot"] | None = None,
) -> Float64[Tensor, "token slot"]:
    """The values ``z >= 0`` that minimise ``|x - z A|²`` for every token, by active sets.

    A slot whose gradient is positive joins the slots that are free; they are solved for; if that
    makes some negative, the way there ends where the first reaches zero, and it leaves. The error
    falls with every round, and it ends where ``z >= 0``, ``gradient <= 0`` and ``z gradient = 0``.

    Args:
        gram: inner products of the chosen atoms.
        moment: inner products of the chosen atoms and x.
        start: the solution for some of the slots, zero in the others, to go on from.

    Reference: Lawson and Hanson 1974, chapter 23; all tokens advance together.
    """
    values = torch.zeros_like(moment) if start is None else start.clone()
    free, barred = values > 0, torch.zeros_like(moment, dtype=torch.bool)
    settled = torch.ones(len(moment), dtype=torch.bool, device=moment.device)
    flat = _FLAT * moment.norm(dim=1)
    for _ in range(_ROUNDS_A_SLOT * moment.shape[1]):
        gradient = moment - (gram @ values.unsqueeze(2)).squeeze(2)
        steepest, slot = gradient.masked_fill(free | barred, -torch.inf).max(1)
        entering = settled & (steepest > flat)
        rows = (entering | ~settled).nonzero().squeeze(1)
        if not len(rows):
            break
        enters = torch.zeros_like(free).scatter(1, slot.unsqueeze(1), entering.unsqueeze(1))[rows]
        now = free[rows] | enters
        goal, before = solve(gram[rows], moment[rows], now), values[rows]
        stopped = now & (goal <= 0)
        share = torch.where(stopped, before / (before - goal).clamp(min=1e-300), torch.inf)
        step = share.amin(1, keepdim=True).clamp(max=1)
        leaves = stopped & (share <= step)
        values[rows] = (before + step * (goal - before)).masked_fill(leaves | ~now, 0).clamp(min=0)
        free[rows] = now & ~leaves
        # It rose by its gradient and fell by the solution: rounding, and it would do so for ever.
        barred[rows] |= enters & leaves
        settled[rows] = ~leaves.any(1)
    return values


@torch.no_grad()
def refit_values(
    codes: Codes,
    x: Float[Tensor, "token d_in"],
    atoms: Float[Tensor, "atom d"],
    *,
    non_negative: bool = False,
) -> Codes:
    """The same latents on every token, with the values that reconstruct it best.

    ``min |x - z A|²`` over the values z of the active slots, so that the error is at most that of
    the codes given, if their values may have these signs: what shrinkage costs an encoder.

    Args:
        codes: whose active slots are the support; what gave them does not matter.
        x: what to reconstruct, without the bias.
        atoms: directions of any length.
        non_negative: whether values below zero are forbidden; then some slots may fall silent.

    Raises:
        ShapeError: if the codes, inputs and atoms do not fit each other.
        NonFiniteError: if there is a NaN or an infinity.
    """
    check_problem(x, atoms)
    if (codes.n_tokens, codes.width) != (len(x), len(atoms)):
        raise ShapeError(
            f"Codes must be of {len(x)} tokens and {len(atoms)} latents, as x and atoms are; got "
            f"{codes.n_tokens} and {codes.width}. Refit codes on what they were made of."
        )
    rows = max(1, CHUNK_ENTRIES // (codes.indices.shape[1] * x.shape[1] + 1))
    fit = nonnegative_least_squares if non_negative else solve
    parts = [
        fit(*normal_equations(indices, active, part, atoms))
        for indices, active, part in zip(
            codes.indices.split(rows), codes.active().split(rows), x.split(rows), strict=True
        )
    ]
    return Codes(indices=codes.indices, values=torch.cat(parts).to(x.dtype), width=codes.width)


def normal_equations(
    indices: Tensor, active: Tensor, x: Float[Tensor, "token d"], atoms: Float[Tensor, "atom d"]
) -> tuple[Float64[Tensor, "token slot slot"], Float64[Tensor, "token slot"]]:
    """Gram matrices and moments of the atoms in some tokens' active slots."""
    chosen = atoms[indices].double() * active.unsqueeze(2)
    return chosen @ chosen.mT, (chosen @ x.double().unsqueeze(2)).squeeze(2)


def check_problem(x: Float[Tensor, "token d_in"], atoms: Float[Tensor, "atom d"]) -> None:
    """Refuse inputs and atoms of different widths, or not finite."""
    check_width(x, atoms.shape[1])
    for what, tensor in (("Inputs", x), ("Atoms", atoms)):
        finite = tensor.isfinite().all(1)
        if not bool(finite.all()):
            raise NonFiniteError(
                f"{what} must be finite; got NaN or Inf in row {int((~finite).nonzero()[0, 0])}. "
                "Look for an overflow in what made them."
            )
