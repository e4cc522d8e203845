"""One call that makes an architecture of one's own known: recipe, sparsifiers and training."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from modelassay.decompositions.dictionary import Recipe, register_recipe
from modelassay.decompositions.sparsifier import Sparsifier, register_sparsifier
from modelassay.fitting.training import Training, training_of

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def register_architecture(
    recipe: type[AnyRecipe],
    *,
    training: Callable[[AnyRecipe], Training],
    sparsifiers: Sequence[type[Sparsifier]] = (),
) -> None:
    """Make a recipe known to `fit`, to storage and to checkpoints.

    Args:
        recipe: what builds the untrained dictionary.
        training: how a dictionary of such a recipe learns: made anew for each run, so that a term
            may change with what it has seen.
        sparsifiers: those of the recipe's dictionaries that the library does not know.

    Raises:
        ValueRangeError: if another recipe has its name, or another sparsifier the kind of one.
    """
    for sparsifier in sparsifiers:
        register_sparsifier(sparsifier)
    register_recipe(recipe)
    training_of.register(recipe, training)
