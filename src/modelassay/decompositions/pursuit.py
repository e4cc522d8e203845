"""Greedy sparse coding over given directions: matching, orthogonal matching and gradient pursuit.

All three choose, k times, the atom that correlates most with what is left of the input, and differ
in the values that they then give to what was chosen. Atoms are compared at unit length, whatever
the length they come with. The k products with all atoms are in the inputs' precision; everything
on the few atoms chosen is in float64.

What is chosen once more takes no second slot, and a token of which nothing is left, but rounding,
takes no more atoms: k is the most that a token has. Nothing is differentiable.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.least_squares import (
    CHUNK_ENTRIES,
    check_problem,
    nonnegative_least_squares,
    solve,
)

_NOTHING_LEFT = 10  # units of rounding of the input's length (ours)


def matching_pursuit(
    x: Float[Tensor, "input d_in"],
    atoms: Float[Tensor, "atom d"],
    k: int,
    *,
    non_negative: bool = False,
) -> Codes:
    """Codes of k rounds: what the best atom correlates with is its value, and is taken away.

    ``i = argmax |r a_i|``, ``z_i += r a_i``, ``r -= (r a_i) a_i``, for unit atoms. Values chosen
    earlier stay, so that an atom may be chosen again to correct its own.

    Args:
        x: inputs. Nothing is centred.
        atoms: directions of any length.
        k: rounds, and so the most atoms of an input.
        non_negative: whether only atoms with a positive correlation are chosen.

    Raises:
        ValueRangeError: if k is not between 1 and the number of atoms.
        ShapeError: if inputs and atoms are of different widths.
        NonFiniteError: if there is a NaN or an infinity.

    Reference: Mallat and Zhang 1993.
    """
    return _pursue(x, atoms, k, _add_correlation, most=len(atoms), non_negative=non_negative)


def orthogonal_matching_pursuit(
    x: Float[Tensor, "input d_in"],
    atoms: Float[Tensor, "atom d"],
    k: int,
    *,
    non_negative: bool = False,
) -> Codes:
    """Codes of at most k atoms an input: greedy choice, least squares on what was chosen.

    With a coherence ``mu = max |a_i a_j|`` of unit atoms, codes of fewer than ``(1 + 1/mu) / 2``
    atoms are found exactly (Tropp 2004), non-negative ones too (Bruckstein et al. 2008).

    Args:
        x: inputs. Nothing is centred.
        atoms: directions of any length.
        k: atoms of every input, at most.
        non_negative: whether values below zero are forbidden: atoms join by their positive
            correlation, and the least squares are non-negative.

    Raises:
        ValueRangeError: if k is not between 1 and the number of atoms, or of dimensions.
        ShapeError: if inputs and atoms are of different widths.
        NonFiniteError: if there is a NaN or an infinity.

    Reference: Pati, Rezaiifar and Krishnaprasad 1993; non-negative: Bruckstein, Elad and Zibulevsky
    2008.
    """
    most = min(atoms.shape)
    return _pursue(x, atoms, k, _fit_support, most=most, non_negative=non_negative)


def gradient_pursuit(
    x: Float[Tensor, "input d_in"],
    atoms: Float[Tensor, "atom d"],
    k: int,
    *,
    non_negative: bool = False,
) -> Codes:
    """Codes of k rounds: the best atom joins, and one step of steepest descent moves all values.

    On the chosen atoms A, ``g = r A^T`` and ``z += (|g|² / |g A|²) g``, which is the exact line
    search. With `non_negative`, what would fall below zero stays at zero, and the length of the
    step so bent is searched again, between nothing and its whole, so that the error cannot rise
    (the second search is ours).

    Args:
        x: inputs. Nothing is centred.
        atoms: directions of any length.
        k: rounds, and so the most atoms of an input.
        non_negative: whether values below zero are forbidden.

    Raises:
        ValueRangeError: if k is not between 1 and the number of atoms.
        ShapeError: if inputs and atoms are of different widths.
        NonFiniteError: if there is a NaN or an infinity.

    Reference: Blumensath and Davies 2008; on a dictionary's directions: Nanda et al. 2024.
    """
    return _pursue(x, atoms, k, _descend, most=len(atoms), non_negative=non_negative)


@dataclass(slots=True)
class _Support:
    """What was chosen so far, for some inputs; slots without an atom hold zeros."""

    gram: Float64[Tensor, "input slot slot"]
    moment: Float64[Tensor, "input slot"]
    values: Float64[Tensor, "input slot"]
    place: Int[Tensor, " input"]
    """Slot of the atom chosen last."""

    def gradient(self) -> Float64[Tensor, "input slot"]:
        """What each chosen atom correlates with in the residual."""
        return self.moment - _times(self.values, self.gram)


_Update = Callable[[_Support, bool], Float64[Tensor, "input slot"]]
"""From the support, and whether values must not be negative, to the new values."""


def _add_correlation(support: _Support, non_negative: bool) -> Tensor:
    place = support.place.unsqueeze(1)
    added = support.gradient().gather(1, place)
    added = added.clamp(min=0) if non_negative else added
    return support.values.scatter_add(1, place, added)


def _fit_support(support: _Support, non_negative: bool) -> Tensor:
    if non_negative:
        return nonnegative_least_squares(support.gram, support.moment, support.values)
    return solve(support.gram, support.moment)


def _descend(support: _Support, non_negative: bool) -> Tensor:
    values, gradient = support.values, support.gradient()
    if not non_negative:
        return values + _line_search(gradient, gradient, support.gram) * gradient
    direction = gradient.masked_fill((values == 0) & (gradient < 0), 0)
    step = _line_search(direction, gradient, support.gram)
    bent = (values + step * direction).clamp(min=0) - values
    share = _line_search(bent, gradient, support.gram).clamp(0, 1)
    return (values + share * bent).clamp(min=0)


def _line_search(direction: Tensor, gradient: Tensor, gram: Tensor) -> Tensor:
    """The length that minimises the error along a direction."""
    curvature = (_times(direction, gram) * direction).sum(1, keepdim=True)
    slope = (direction * gradient).sum(1, keepdim=True)
    return torch.where(curvature > 0, slope / curvature, 0)


def _times(values: Tensor, matrices: Tensor) -> Tensor:
    return (values.unsqueeze(1) @ matrices).squeeze(1)


@torch.no_grad()
def _pursue(
    x: Tensor, atoms: Tensor, k: int, update: _Update, *, most: int, non_negative: bool
) -> Codes:
    check_problem(x, atoms)
    check_k(k, most, atoms)
    lengths = atoms.double().norm(dim=1)
    lengths = torch.where(lengths > 0, lengths, 1)
    unit = (atoms.double() / lengths.unsqueeze(1)).to(x)
    rows = max(1, CHUNK_ENTRIES // (len(atoms) + 2 * k * x.shape[1]))
    found = [_pursue_rows(part, unit, k, update, non_negative) for part in x.split(rows)]
    indices = torch.cat([chosen for chosen, _ in found])
    values = torch.cat([values for _, values in found]) / lengths[indices]
    return Codes(indices=indices, values=values.to(x.dtype), width=len(atoms))


def _pursue_rows(
    x: Tensor, unit: Tensor, k: int, update: _Update, non_negative: bool
) -> tuple[Tensor, Tensor]:
    target, n = x.double(), len(x)
    members = target.new_zeros(n, k, x.shape[1])
    gram, moment, values = target.new_zeros(n, k, k), target.new_zeros(n, k), target.new_zeros(n, k)
    indices = torch.zeros(n, k, dtype=torch.long, device=x.device)
    nothing = _NOTHING_LEFT * torch.finfo(x.dtype).eps * x.norm(dim=1)
    residual = x
    for slot in range(k):
        correlations = residual @ unit.T
        largest, best = (correlations if non_negative else correlations.abs_()).max(1)
        goes_on = largest > nothing
        indices[:, slot], place = _slots_of(best, indices[:, :slot], gram, goes_on)
        members[:, slot] = unit[best].double() * (goes_on & (place == slot)).unsqueeze(1)
        so_far = members[:, : slot + 1]
        products = (so_far @ members[:, slot].unsqueeze(2)).squeeze(2)
        gram[:, slot, : slot + 1] = gram[:, : slot + 1, slot] = products
        moment[:, slot] = (members[:, slot] * target).sum(1)
        chosen = slice(slot + 1)
        support = _Support(gram[:, chosen, chosen], moment[:, chosen], values[:, chosen], place)
        values[:, chosen] = torch.where(
            goes_on.unsqueeze(1), update(support, non_negative), values[:, chosen]
        )
        residual = (target - _times(values[:, chosen], so_far)).to(x.dtype)
    return indices, values


def _slots_of(
    best: Int[Tensor, " input"],
    indices: Int[Tensor, "input slot"],
    gram: Float64[Tensor, "input k k"],
    goes_on: Bool[Tensor, " input"],
) -> tuple[Int[Tensor, " input"], Int[Tensor, " input"]]:
    """The new slot's atom, 0 if it stays empty, and the slot that the best atom stands in."""
    slot = indices.shape[1]
    filled = gram.diagonal(dim1=1, dim2=2)[:, :slot] > 0
    again = filled & (indices == best.unsqueeze(1)) & goes_on.unsqueeze(1)
    is_again = again.any(1)
    place = torch.full_like(best, slot)
    if slot:
        place = torch.where(is_again, again.to(torch.int8).argmax(1), place)
    return best * (goes_on & ~is_again), place


def check_k(k: int, most: int, atoms: Float[Tensor, "atom d"]) -> None:
    """Refuse more atoms a token than can be chosen, and fewer than one."""
    if 1 <= k <= most:
        return
    what = "atoms" if most == len(atoms) else "dimensions"
    raise ValueRangeError(
        f"k must be between 1 and the number of {what}, {most}; got {k}. Choose fewer active atoms."
        if k > most
        else f"k must be between 1 and the number of {what}, {most}; got {k}. Choose at least one."
    )
