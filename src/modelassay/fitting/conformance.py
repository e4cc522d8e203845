"""What every architecture must fulfil, ours and yours: `check_architecture` checks it.

- codes: of the shapes, signs and sparsity that were promised, each latent once, the same for a
  token alone as among others, the same in training as at inference;
- edges: no tokens, no active latents, NaN;
- exports: scale and decoder norms fold exactly, what is saved is read back;
- training: every parameter and every term of the loss has a gradient, the loss falls, a stopped
  run goes on bit for bit, the unit of the activations does not matter.
"""

from collections.abc import Callable
from dataclasses import dataclass

from modelassay.decompositions.dictionary import Recipe
from modelassay.fitting import conformance_codes as codes
from modelassay.fitting import conformance_training as training
from modelassay.fitting.conformance_case import Case, Finding


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One demand on an architecture, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conformance:
    """All demands on an architecture; as text, a line for each."""

    recipe: Recipe
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every demand is met."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The demands that are not met."""
        return tuple(check for check in self.checks if not check.passed)

    def __str__(self) -> str:
        lines = [
            f"{'ok  ' if check.passed else 'FAIL'} {check.name} ({check.found})"
            for check in self.checks
        ]
        return "\n".join([str(self.recipe), *lines])


CHECKS: dict[str, Callable[[Case], Finding | None]] = {
    "weights have their shapes": codes.has_the_shapes,
    "a token's code is its own": codes.is_alone,
    "a token has each latent once": codes.names_latents_once,
    "as sparse as promised": codes.is_as_sparse_as_promised,
    "values have the signs they may": codes.has_the_signs_it_says,
    "training chooses as inference does": codes.trains_on_what_it_infers,
    "training and inference agree on L0": codes.agrees_on_l0,
    "no tokens": codes.takes_no_tokens,
    "no active latents": codes.survives_silence,
    "no code of NaN": codes.refuses_nan,
    "the scale folds exactly": codes.folds_the_scale,
    "decoder norms fold exactly": codes.folds_the_norms,
    "what is saved is read back": codes.is_read_back,
    "every parameter is taught": training.teaches_every_parameter,
    "every term of the loss teaches": training.learns_by_every_term,
    "dead latents do no harm": training.outlives_dead_latents,
    "the loss falls": training.lowers_the_loss,
    "directions have unit length": training.has_unit_directions,
    "a stopped run goes on bit for bit": training.goes_on_bit_for_bit,
    "the unit does not matter": training.ignores_the_unit,
    "no fit to NaN": training.stops_at_nan,
}
"""Each demand by its name; one that does not apply to an architecture finds None."""


def check_architecture(recipe: Recipe, *, seed: int = 0) -> Conformance:
    """Check all that the library relies on, on activations of planted features.

    Takes seconds for a small width. What a check raises counts as failed and is quoted.

    Args:
        recipe: of the architecture, registered (see `register_architecture`); 64 latents and an
            L0 of about 4 suit the 32 planted features in 16 dimensions.
        seed: of the features and of the dictionary.

    Raises:
        UnknownNameError: if no training is registered for the recipe.
        ModelassayError: whatever else keeps it from being fitted at all.
    """
    case = Case.of(recipe, seed)
    found = ((name, _look(check, case)) for name, check in CHECKS.items())
    return Conformance(
        recipe=recipe,
        checks=tuple(
            Check(name=name, passed=finding.passed, found=finding.found)
            for name, finding in found
            if finding is not None
        ),
    )


def _look(check: Callable[[Case], Finding | None], case: Case) -> Finding | None:
    try:
        return check(case)
    except Exception as error:  # noqa: BLE001 - whatever an architecture raises is its finding
        return Finding(passed=False, found=f"{type(error).__name__}: {error}")
