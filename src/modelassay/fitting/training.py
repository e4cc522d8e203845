"""How each recipe is trained: its loss, and what its optimiser does besides."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import assert_never

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.decompositions.dictionary import RECIPES, Dictionary, Recipe
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
    ReLUL1,
    TopK,
)
from modelassay.fitting.archetypal import archetypal
from modelassay.fitting.magnitudes import MagnitudeBias
from modelassay.fitting.norm_aware import NormAware
from modelassay.fitting.objectives.annealed import AnnealedPower
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.gated import GateL1, GateReconstruction
from modelassay.fitting.objectives.l0 import L0, Tanh, TargetL0
from modelassay.fitting.objectives.l1 import L1
from modelassay.fitting.objectives.objective import Objective
from modelassay.fitting.objectives.reconstruction import NestedReconstruction, Reconstruction
from modelassay.fitting.parametrisation import FromActivations, Parametrisation
from modelassay.fitting.resampling import Resampling
from modelassay.fitting.tied import Tied

_BETAS = (0.9, 0.999)  # Gao et al. 2024, appendix A.3
_MEMORYLESS_BETAS = (0.0, 0.999)  # Rajamanoharan et al. 2024, both papers


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How a dictionary learns."""

    objectives: tuple[Objective, ...]
    """Terms of the loss."""
    unit_decoder: bool = True
    """Keep decoder rows at norm 1; otherwise their norms are folded into the encoder at the
    end."""
    matches_start: bool = False
    """Before the first step, multiply the encoder with the number that makes the first batch's
    reconstruction error least: ``Σ r (x - b_dec) / Σ r²``, with r what its codes decode to. An
    encoder that is the decoder's transpose starts with reconstructions that are too long, since
    active rows overlap (Gao et al. 2024, appendix A.1, who match the norms)."""
    betas: tuple[float, float] = _BETAS
    """Adam's."""
    prefixes: tuple[int, ...] = ()
    """Sizes of nested dictionaries; none where there is but one."""
    random_prefixes: int = 0
    """How many nested dictionaries are drawn at each step in the place of fixed ones."""
    bandwidth: float = 0.0
    """Of the straight-through gradients of thresholds, in units of the root mean square
    of a coordinate."""
    window_stride: int = 1
    """Every which token of a batch shows thresholds what lies just below them."""
    threshold_rate: float = 1.0
    """Learning rate of the sparsifier's parameters, as a multiple of the weights'."""
    parametrisation: Callable[[Dictionary], Parametrisation] | FromActivations | None = None
    """What is trained in the place of some of the dictionary's parameters; those themselves if
    None."""
    resampling: Resampling | None = None
    """When dead latents begin anew; never if None."""


@singledispatch
def training_of(recipe: Recipe) -> Training:
    """How a dictionary of some recipe is trained; ``@training_of.register`` adds one.

    Raises:
        UnknownNameError: if none is registered for the recipe.
    """
    raise UnknownNameError("A recipe", type(recipe).__name__, RECIPES)


@training_of.register(TopK | BatchTopK | AbsTopK | GroupMax)
def _comparing(recipe: TopK | BatchTopK | AbsTopK | GroupMax) -> Training:
    return Training(
        objectives=(Reconstruction(), AuxK()),
        matches_start=True,
        parametrisation=NormAware if recipe.free_decoder else None,
    )


@training_of.register
def _matryoshka(recipe: Matryoshka) -> Training:
    training = training_of(recipe.nested)
    if Reconstruction() not in training.objectives:
        raise ValueRangeError(
            "What is nested must learn by a Reconstruction; got "
            f"{', '.join(type(term).__name__ for term in training.objectives)}. "
            "Add one to its training's objectives."
        )
    nested = NestedReconstruction()
    return replace(
        training,
        objectives=tuple(nested if o == Reconstruction() else o for o in training.objectives),
        prefixes=recipe.prefixes,
        random_prefixes=recipe.random_prefixes,
    )


@training_of.register
def _relu_l1(recipe: ReLUL1) -> Training:
    penalty = L1(coefficient=recipe.l1_coefficient)
    return Training(objectives=(Reconstruction(), penalty), unit_decoder=False)


@training_of.register
def _annealed_l1(recipe: AnnealedL1) -> Training:
    penalty = AnnealedPower(
        coefficient=recipe.l1_coefficient,
        p_end=recipe.p_end,
        p_steps=recipe.p_steps,
        start_share=recipe.start_share,
        end_share=recipe.end_share,
    )
    return Training(objectives=(Reconstruction(), penalty), unit_decoder=False)


@training_of.register
def _gated(recipe: Gated) -> Training:
    penalty = GateL1(coefficient=recipe.l1_coefficient)
    return Training(
        objectives=(Reconstruction(), penalty, GateReconstruction()),
        betas=_MEMORYLESS_BETAS,
        parametrisation=MagnitudeBias,
    )


@training_of.register
def _archetypal(recipe: Archetypal) -> Training:
    training = training_of(recipe.fitted)
    if recipe.frozen_decoder:
        return training
    if training.parametrisation is not None:
        raise ValueRangeError(
            "What gets an archetypal decoder must train its weights themselves; got "
            f"{recipe.fitted}, whose weights are made of others. Use TopK, BatchTopK or JumpReLU."
        )
    return replace(training, unit_decoder=True, parametrisation=archetypal(recipe))


@training_of.register
def _matching_pursuit(recipe: MatchingPursuit | OrthogonalMatchingPursuit) -> Training:
    return Training(
        objectives=(Reconstruction(),),
        parametrisation=None if recipe.frozen_decoder else Tied,
    )


@training_of.register
def _jump_relu(recipe: JumpReLU) -> Training:
    return Training(
        objectives=(Reconstruction(), _penalty(recipe)),
        betas=_MEMORYLESS_BETAS,
        bandwidth=recipe.bandwidth,
        window_stride=recipe.window_stride,
        threshold_rate=recipe.threshold_rate,
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
