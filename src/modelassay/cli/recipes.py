"""From the words of a command line to a recipe."""

from modelassay.cli.options import Kind
from modelassay.decompositions.recipes import (
    AbsTopK,
    AnnealedL1,
    BatchTopK,
    Gated,
    GroupMax,
    JumpReLU,
    Matryoshka,
    Recipe,
    ReLUL1,
    TopK,
)


def recipe_of(kind: Kind, *, width: int, k: int) -> Recipe:
    """The recipe that `--fit KIND --width WIDTH --k K` means.

    A JumpReLU dictionary aims at an L0 of k; those with a penalty on values have no k.
    """
    match kind:
        case "topk":
            return TopK(width=width, k=k)
        case "batchtopk":
            return BatchTopK(width=width, k=k)
        case "matryoshka":
            return Matryoshka(width=width, k=k)
        case "jumprelu":
            return JumpReLU(width=width, target_l0=float(k))
        case "abstopk":
            return AbsTopK(width=width, k=k)
        case "groupmax":
            return GroupMax(width=width, k=k)
        case "relu":
            return ReLUL1(width=width)
        case "annealed":
            return AnnealedL1(width=width)
        case "gated":
            return Gated(width=width)
