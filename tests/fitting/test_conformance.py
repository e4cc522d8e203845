"""The suite passes on every recipe of the library, and finds what is broken."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.randomness import generator
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.dictionary import RECIPES, Dictionary, Recipe
from modelassay.decompositions.recipe_parts import tied, unit_rows
from modelassay.decompositions.recipes import (
    AbsTopK,
    AnnealedL1,
    Archetypal,
    Gated,
    JumpReLU,
    MatchingPursuit,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.fitting import conformance_codes as codes
from modelassay.fitting import conformance_training as learning
from modelassay.fitting.conformance import CHECKS, check_architecture
from modelassay.fitting.conformance_case import Case, planted_rows
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.objective import Forward
from modelassay.fitting.objectives.reconstruction import Reconstruction
from modelassay.fitting.training import Training, training_of
from modelassay.subjects.site import Site

OURS = sorted(n for n, kind in RECIPES.items() if kind.__module__.startswith("modelassay."))
SMALL = {"width": 64, "k": 4, "target_l0": 4.0, "l1_coefficient": 1.0}
VARIANTS: list[Recipe] = [
    TopK(width=64, k=4, frozen_decoder=True),
    TopK(width=64, k=4, free_decoder=True),
    JumpReLU(width=64, penalty="step", coefficient=0.02),
    JumpReLU(width=64, penalty="tanh", coefficient=0.02),
    Matryoshka(width=64, k=4, free_decoder=True, random_prefixes=5),
    Matryoshka.of(JumpReLU(width=64, target_l0=4.0), random_prefixes=5),
    Matryoshka.of(ReLUL1(width=64, l1_coefficient=1.0)),
    Matryoshka.of(AnnealedL1(width=64, l1_coefficient=1.0), random_prefixes=5),
    Matryoshka.of(AbsTopK(width=64, k=4)),
    Matryoshka.of(Gated(width=64, l1_coefficient=1.0), random_prefixes=5),
    MatchingPursuit(width=64, k=4, tolerance=0.2),
    MatchingPursuit(width=64, k=4, frozen_decoder=True),
    Archetypal.of(JumpReLU(width=64, target_l0=4.0), candidates=48, relaxation=0.2),
    Matryoshka.of(Archetypal(width=64, k=4, candidates=48, candidates_are="sample")),
]


def small(name: str) -> Recipe:
    """The recipe for the 32 planted features."""
    kind = RECIPES[name]
    known = {field.name for field in fields(kind)}
    return kind(**{field: value for field, value in SMALL.items() if field in known})


@pytest.mark.parametrize("name", OURS)
def test_every_recipe_conforms(name: str):
    report = check_architecture(small(name))
    assert report.passed, str(report)
    assert len(report.checks) >= 19


@pytest.mark.parametrize("recipe", VARIANTS, ids=str)
def test_every_variant_conforms(recipe: Recipe):
    report = check_architecture(recipe, seed=3)
    assert report.passed, str(report)


class Broken(Sparsifier):
    """A TopK whose inner workings go wrong in a chosen way."""

    kind = "broken"
    label = "Broken"

    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.wrong = wrong
        self.k = 4
        self.compares_latents = wrong != "norms"
        if wrong == "unit":
            self.register_buffer("threshold", torch.tensor(0.5))

    def settings(self) -> dict[str, Any]:
        return {"wrong": "saved" if self.wrong == "saved" else self.wrong}

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        values, indices = pre.topk(self.k, dim=1)
        match self.wrong:
            case "neighbours":
                return values.relu() * (values > pre.max() / 2), indices
            case "twice":
                return values.relu().repeat(1, 2) / 2, indices.repeat(1, 2)
            case "sparsity":
                values, indices = pre.topk(self.k + 1, dim=1)
            case "sign":
                indices = pre.abs().topk(self.k, dim=1).indices
                return pre.gather(1, indices), indices
            case "unit":
                return values.relu() * (values > self.get_buffer("threshold")), indices
            case "nothing":
                return values.relu() + 1, indices
            case _:
                pass
        return values.relu(), indices

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        if self.wrong != "training":
            return super().encode(batch)
        values, indices = batch.pre_activations().topk(2, dim=1)
        return BatchCodes(values=values.relu(), indices=indices)


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenRecipe(Recipe):
    references: ClassVar[tuple[str, ...]] = ()
    wrong: str

    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> Dictionary:
        drawn = torch.Generator().manual_seed(0) if self.wrong == "seed" else generator
        decoder = unit_rows(self.width, d_out, drawn)
        return tied(self, decoder, Broken(self.wrong), d_in, data_mean, site)


class Silent:
    """A term without a gradient, as an auxiliary loss of detached values is."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        return 0.1 * forward.values.detach().mean()


class Forgetful:
    """A term that counts its calls and keeps the number to itself."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        self.calls += 1
        return self.calls * Reconstruction()(forward)


class Infinite:
    """A term that divides by the values there are."""

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        return forward.values.sum() / forward.values.detach().sum()


@training_of.register
def _(recipe: BrokenRecipe) -> Training:
    match recipe.wrong:
        case "silent":
            return Training(objectives=(Reconstruction(), Silent()))
        case "forgetful":
            return Training(objectives=(Forgetful(),))
        case "infinite":
            return Training(objectives=(Reconstruction(), Infinite()))
        case _:
            return Training(objectives=(Reconstruction(), AuxK()))


def broken(wrong: str) -> Case:
    """A case whose dictionary is drawn, not fitted: all that most checks need."""
    recipe, rows = BrokenRecipe(width=64, wrong=wrong), planted_rows(0)
    dictionary = recipe.build(16, 16, rows.mean(0), generator(0), None)
    return Case(recipe=recipe, seed=0, rows=rows, dictionary=dictionary, losses=())


FOUND_BY = {
    "seed": codes.has_the_shapes,
    "neighbours": codes.is_alone,
    "twice": codes.names_latents_once,
    "sparsity": codes.is_as_sparse_as_promised,
    "sign": codes.has_the_signs_it_says,
    "training": codes.trains_on_what_it_infers,
    "nothing": codes.survives_silence,
    "unit": codes.folds_the_scale,
    "norms": codes.folds_the_norms,
    "silent": learning.learns_by_every_term,
    "infinite": learning.outlives_dead_latents,
    "forgetful": learning.goes_on_bit_for_bit,
}


@pytest.mark.parametrize("wrong", FOUND_BY)
def test_what_is_broken_is_found(wrong: str):
    finding = FOUND_BY[wrong](broken(wrong))
    assert finding is not None
    assert not finding.passed, finding.found


def test_what_is_not_broken_is_not():
    case = broken("in no way")
    for wrong, check in FOUND_BY.items():
        finding = check(case)
        assert finding is not None
        assert finding.passed, (wrong, finding.found)


def test_training_and_inference_of_different_sparsity_are_found():
    finding = codes.agrees_on_l0(broken("training"))
    assert not finding.passed
    assert finding.found.startswith("2.000 in training, 4.000")


def test_a_dictionary_that_cannot_be_read_back_fails_with_the_reason():
    report = check_architecture(BrokenRecipe(width=64, wrong="in no way"))
    (failed,) = report.failed
    assert failed.name == "what is saved is read back"
    assert "UnknownNameError" in failed.found
    assert "broken" in failed.found


def test_the_report_reads_line_by_line():
    report = check_architecture(TopK(width=64, k=4))
    lines = str(report).splitlines()
    assert lines[0].startswith("TopK(width=64")
    assert len(lines) == 1 + len(report.checks)
    assert [check.name for check in report.checks] == list(CHECKS)
    assert report.failed == ()
