"""From the words of a command line to a recipe."""

from modelassay.cli.options import Kind
from modelassay.decompositions.recipes import BatchTopK, Recipe, ReLUL1, TopK


def recipe_of(kind: Kind, *, width: int, k: int) -> Recipe:
    """The recipe that `--fit KIND --width WIDTH --k K` means; a ReLU dictionary has no k."""
    match kind:
        case "topk":
            return TopK(width=width, k=k)
        case "batchtopk":
            return BatchTopK(width=width, k=k)
        case "relu":
            return ReLUL1(width=width)
