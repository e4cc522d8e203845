"""How each recipe is trained: its loss, and what its optimiser does besides."""

from dataclasses import dataclass
from typing import assert_never

from modelassay.core.errors import UnknownNameError
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    RECIPES,
    AbsTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.l0 import L0, Tanh, TargetL0
from modelassay.fitting.objectives.l1 import L1
from modelassay.fitting.objectives.objective import Objective
from modelassay.fitting.objectives.reconstruction import NestedReconstruction, Reconstruction

_BETAS = (0.9, 0.999)  # Gao et al. 2024, appendix A.3
_MEMORYLESS_BETAS = (0.0, 0.999)  # Rajamanoharan et al. 2024, both papers


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How a dictionary learns."""

    objectives: tuple[Objective, ...]
    """Terms of the loss."""
    unit_decoder: bool = True
    """Keep decoder rows at norm 1."""
    betas: tuple[float, float] = _BETAS
    """Adam's."""
    prefixes: tuple[int, ...] = ()
    """Sizes of nested dictionaries; none where there is but one."""
    bandwidth: float = 0.0
    """Of the straight-through gradients of thresholds, in units of the activations' mean norm."""
    threshold_rate: float = 1.0
    """Learning rate of thresholds, as a multiple of the weights'."""


def training_of(recipe: Recipe) -> Training:
    """How a dictionary of some recipe is trained.

    Raises:
        UnknownNameError: if it is none of the library's recipes.
    """
    match recipe:
        case TopK() | BatchTopK() | AbsTopK() | GroupMax():
            return Training(objectives=(Reconstruction(), AuxK()))
        case Matryoshka(prefixes=prefixes):
            return Training(objectives=(NestedReconstruction(), AuxK()), prefixes=prefixes)
        case ReLUL1(l1_coefficient=coefficient):
            penalty = L1(coefficient=coefficient)
            return Training(objectives=(Reconstruction(), penalty), unit_decoder=False)
        case JumpReLU():
            return Training(
                objectives=(Reconstruction(), _penalty(recipe)),
                betas=_MEMORYLESS_BETAS,
                bandwidth=recipe.bandwidth,
                threshold_rate=recipe.threshold_rate,
            )
        case _:
            raise UnknownNameError(
                "A recipe", type(recipe).__name__, [known.__name__ for known in RECIPES]
            )


def _penalty(recipe: JumpReLU) -> Objective:
    match recipe.penalty:
        case "step":
            return L0(coefficient=recipe.coefficient)
        case "quadratic":
            return TargetL0(target=recipe.target_l0, coefficient=recipe.coefficient)
        case "tanh":
            return Tanh(coefficient=recipe.coefficient)
        case _:
            assert_never(recipe.penalty)
