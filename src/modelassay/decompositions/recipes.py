"""The dictionaries that `fit` can make."""

from modelassay.decompositions.dictionary import RECIPES, Recipe
from modelassay.decompositions.recipe_archetypal import Archetypal
from modelassay.decompositions.recipe_gated import Gated
from modelassay.decompositions.recipe_nested import Matryoshka
from modelassay.decompositions.recipe_parts import unit_rows
from modelassay.decompositions.recipe_penalised import AnnealedL1, ReLUL1
from modelassay.decompositions.recipe_pursuit import (
    MatchingPursuit,
    OrthogonalMatchingPursuit,
)
from modelassay.decompositions.recipe_slots import AbsTopK, GroupMax
from modelassay.decompositions.recipe_thresholds import JumpReLU
from modelassay.decompositions.recipe_topk import BatchTopK, TopK

__all__ = [
    "RECIPES",
    "AbsTopK",
    "AnnealedL1",
    "Archetypal",
    "BatchTopK",
    "Gated",
    "GroupMax",
    "JumpReLU",
    "MatchingPursuit",
    "Matryoshka",
    "OrthogonalMatchingPursuit",
    "ReLUL1",
    "Recipe",
    "TopK",
    "unit_rows",
]
