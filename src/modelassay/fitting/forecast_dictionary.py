"""What a dictionary would be, in numbers."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.matching_pursuit import MatchingPursuitActivation
from modelassay.decompositions.orthogonal_pursuit import OrthogonalPursuitActivation
from modelassay.decompositions.recipes import Archetypal, OrthogonalMatchingPursuit
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import BatchTopKActivation
from modelassay.fitting.norm_aware import NormAware
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.tied import Tied
from modelassay.fitting.training import Training, training_of

Pursuit = Literal["matching", "orthogonal"]
Weights = Literal["own", "tied", "free", "mixtures", "fixed"]
"""What is trained: the weights themselves; one set of directions for both; weights with rows of
any length, of which unit rows are made; an encoder, and mixtures of candidates; or b_dec alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DictionaryShape:
    """The sizes of a dictionary that reads and writes activations of the same width d."""

    name: str
    width: int
    active: float | None
    """Mean number of active latents a token; None where the training step is dense."""
    varies_k: bool = False
    """Whether a schedule can lower the number of active latents."""
    sparsifier_parameters: int = 0
    """Trained thresholds and the like, in all."""
    frozen_decoder: bool = False
    unit_decoder: bool = True
    """Whether decoder rows are brought back to length 1 after each step."""
    prefixes: int = 0
    """Nested reconstructions besides the one."""
    revives: bool = True
    """Whether AuxK trains dead latents."""
    compares_tokens: bool = False
    """Whether the largest latents are chosen among all tokens of a batch."""
    pursuit: Pursuit | None = None
    """Whether latents are chosen in rounds, each by what those before it left."""
    weights: Weights = "own"
    candidates: int = 0
    """Of which decoder rows are mixtures."""
    parts: int = 1
    """In how many parts of its latents the whole was divided, of which this is one."""

    def __post_init__(self) -> None:
        must_be_positive(width=self.width)
        if self.active is not None and not 0 < self.active <= self.width:
            raise ValueRangeError(
                f"Active latents must be above 0 and at most the width, {self.width}; got "
                f"{self.active}. Use 16 to 64 for a residual stream."
            )

    @staticmethod
    def of(recipe: Recipe) -> "DictionaryShape":
        """The sizes of what a recipe makes.

        A recipe with a `k` or a `target_l0` is counted as sparse, every other one as dense. (With
        a `target_l0` the first steps are dense too, until the penalty has acted.)
        """
        settings = asdict(recipe)
        while settings.get("inner"):  # nested dictionaries of another recipe
            settings = settings["inner"]
        active = settings.get("k", settings.get("target_l0"))
        training = training_of(recipe)
        probe = _probe(recipe)
        return DictionaryShape(
            name=probe.name,
            width=recipe.width,
            active=None if active is None else float(active),
            varies_k=probe.activation.varies_k,
            sparsifier_parameters=sum(p.numel() for p in probe.activation.parameters()),
            frozen_decoder=recipe.frozen_decoder,
            unit_decoder=training.unit_decoder and not recipe.frozen_decoder,
            prefixes=max(0, max(len(training.prefixes), training.random_prefixes) - 1),
            revives=any(isinstance(term, AuxK) for term in training.objectives),
            compares_tokens=isinstance(probe.activation, BatchTopKActivation),
            pursuit=_pursuit(probe.activation),
            weights=_weights(recipe, training, probe.activation),
            candidates=_candidates(recipe),
        )

    def shard(self, shards: int) -> "DictionaryShape":
        """The largest of equal parts of its latents; the active ones are spread evenly."""
        width = -(-self.width // shards)
        active = None if self.active is None else min(self.active / shards, width)
        own = -(-self.sparsifier_parameters // shards)
        return replace(
            self,
            width=width,
            active=active,
            sparsifier_parameters=own,
            parts=self.parts * shards,
        )

    @property
    def divisible(self) -> bool:
        """Whether this version can spread its latents over devices."""
        return self.pursuit is None and self.weights in ("own", "free")

    def check_initial_k(self, initial_k: int | None) -> None:
        """Refuse a fall of k that a fit would refuse.

        Raises:
            ValueRangeError: if k cannot vary, or the start is beyond the width.
        """
        if initial_k is None:
            return
        if not self.varies_k or not 1 <= initial_k <= self.width:
            wanted = f"from 1 to the width, {self.width}," if self.varies_k else "None"
            raise ValueRangeError(
                f"initial_k must be {wanted} for {self.name}; got {initial_k}. "
                "Leave it out, or use 2 to 10 times the k of a recipe that has one."
            )

    def matrices(self, d: int) -> tuple[tuple[int, int], ...]:
        """Rows and columns of every matrix that is trained."""
        square = (self.width, d)
        match self.weights:
            case "fixed":
                return ()
            case "tied":
                return (square,)
            case "mixtures":
                return ((self.width, self.candidates), square, square)
            case _:
                return (square,) if self.frozen_decoder else (square, square)

    def vectors(self, d: int) -> int:
        """Entries of all else that is trained."""
        match self.weights:
            case "fixed":
                return d
            case "tied":
                return d + self.sparsifier_parameters
            case _:
                # A decoder made of mixtures has one scale.
                scale = int(self.weights == "mixtures")
                return self.width + d + self.sparsifier_parameters + scale

    def parameters(self, d: int) -> int:
        """Entries that lie in memory: ``2 d F + F + d``, the sparsifier's own, and what the
        weights are made of where they are made."""
        dictionary = 2 * d * self.width + self.width + d + self.sparsifier_parameters
        match self.weights:
            case "tied":
                return dictionary + d * self.width
            case "free":
                return dictionary + 2 * d * self.width + self.width
            case "mixtures":
                mixed = self.width * self.candidates + self.candidates * d
                return dictionary + 2 * d * self.width + self.width + 1 + mixed
            case _:
                return dictionary

    def made_entries(self, d: int) -> int:
        """Entries that every step makes of what is trained, and their gradients."""
        square = d * self.width
        match self.weights:
            case "tied":
                return 3 * square  # one matrix, seen from both sides, with two gradients
            case "free" | "mixtures":
                return 2 * (2 * square + self.width)
            case _:
                return 0

    def trained_parameters(self, d: int) -> int:
        """The entries with a gradient and moments."""
        return sum(rows * columns for rows, columns in self.matrices(d)) + self.vectors(d)


def must_be_positive(**values: int) -> None:
    """Refuse sizes below 1.

    Raises:
        ValueRangeError: for the first of them.
    """
    for name, value in values.items():
        if value < 1:
            raise ValueRangeError(f"{name} must be at least 1; got {value}. Raise it.")


def _probe(recipe: Recipe) -> Dictionary:
    """Built for activations of one column: as wide as asked for, at 16 bytes a latent or so."""
    few = replace(recipe, k=1) if isinstance(recipe, OrthogonalMatchingPursuit) else recipe
    probe = few.build(1, 1, torch.zeros(1), derived(0, "probe"), None)
    if isinstance(recipe, OrthogonalMatchingPursuit):  # more latents than columns have no fit
        probe.name = probe.name.replace("(k=1)", f"(k={recipe.k})")
    return probe


def _pursuit(activation: Sparsifier) -> Pursuit | None:
    if isinstance(activation, OrthogonalPursuitActivation):
        return "orthogonal"
    return "matching" if isinstance(activation, MatchingPursuitActivation) else None


def _weights(recipe: Recipe, training: Training, activation: Sparsifier) -> Weights:
    if _pursuit(activation) and recipe.frozen_decoder:
        return "fixed"
    if training.parametrisation is Tied:
        return "tied"
    if training.parametrisation is NormAware:
        return "free"
    return "mixtures" if _candidates(recipe) else "own"


def _candidates(recipe: Recipe) -> int:
    """Candidates of a decoder that is made of mixtures, itself or inside another."""
    if recipe.frozen_decoder:
        return 0
    if isinstance(recipe, Archetypal):
        return recipe.candidates
    inner = getattr(recipe, "inner", None)
    return 0 if inner is None else _candidates(inner)
