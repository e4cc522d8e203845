"""From the words of a command line to a recipe."""

from collections.abc import Callable

from modelassay.cli.options import Kind
from modelassay.decompositions.recipes import (
    AbsTopK,
    AnnealedL1,
    Archetypal,
    BatchTopK,
    Gated,
    GroupMax,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    OrthogonalMatchingPursuit,
    Recipe,
    ReLUL1,
    TopK,
)

_RECIPES: dict[Kind, Callable[[int, int], Recipe]] = {
    "topk": lambda width, k: TopK(width=width, k=k),
    "batchtopk": lambda width, k: BatchTopK(width=width, k=k),
    "matryoshka": lambda width, k: Matryoshka(width=width, k=k),
    "jumprelu": lambda width, k: JumpReLU(width=width, target_l0=float(k)),
    "abstopk": lambda width, k: AbsTopK(width=width, k=k),
    "groupmax": lambda width, k: GroupMax(width=width, k=k),
    "relu": lambda width, _: ReLUL1(width=width),
    "annealed": lambda width, _: AnnealedL1(width=width),
    "gated": lambda width, _: Gated(width=width),
    "matching_pursuit": lambda width, k: MatchingPursuit(width=width, k=k),
    "orthogonal_matching_pursuit": lambda width, k: OrthogonalMatchingPursuit(width=width, k=k),
    "archetypal": lambda width, k: Archetypal(width=width, k=k),
}


def recipe_of(kind: Kind, *, width: int, k: int) -> Recipe:
    """The recipe that `--fit KIND --width WIDTH --k K` means.

    A JumpReLU dictionary aims at an L0 of k; those with a penalty on values have no k.
    """
    return _RECIPES[kind](width, k)
