"""`Testbed`: arms with identical activations and different readers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.latents import Latents, OnInputs, on_inputs
from modelassay.testbeds.nulls import (
    null_match_of_directions,
    nulls_of_largest,
    nulls_of_projections,
)
from modelassay.testbeds.picture import Drawing
from modelassay.testbeds.scores import (
    Scores,
    corrected,
    correlation,
    correlation_with,
    cosine,
    graph_score,
    match,
    standardised,
)
from modelassay.testbeds.truth import Truth, is_active

COINCIDE = 0.99
"""Truths that match each other by more than this, both ways, are the same truth (ours)."""
DEGENERATE = 0.95
"""A null match above this leaves a score nothing to measure (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How large a dictionary a testbed asks for; its own, the same for all methods."""

    width: int
    k: int
    """Active latents per input."""
    l1_coefficient: float = 1.0
    """Penalty of the methods that have one, for activations scaled to a norm of sqrt(d)."""
    tokens: int = 1_500_000
    """Inputs seen in training, repeats counted."""
    batch_tokens: int = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Testbed:
    """Arms that a method which sees activations alone cannot tell apart.

    Making one checks what the scores rely on.

    Raises:
        ValueRangeError: if the arms' activations are not bit for bit the same, if truths coincide,
            if a feature is constant, or if random dictionaries already match a truth.
    """

    __test__ = False  # its name makes pytest take it for a test

    name: str
    """As it is asked for: "T1.circle"."""
    seed: int
    """Of the construction."""
    arms: tuple[Arm, ...]
    size: Size
    similarity: Literal["values", "directions"] = "values"
    """What a match is about: |correlation| of values, or |cosine| of directions."""
    own_scores: Callable[[Arm, Decomposition], Mapping[str, float]] = field(
        default=lambda _arm, _decomposition: {}
    )
    """What else this testbed measures of a decomposition in an arm."""
    affinity: Callable[[Arm, Decomposition], float] | None = None
    """How near a decomposition is to an arm's model truth, for PAD; the corrected match if None."""
    known: Callable[[], Sequence[KnownNumber]] = field(default=tuple)
    """Reproduces the numbers that are known about it; may take seconds."""
    draw: Callable[[Mapping[str, Decomposition]], Sequence[Drawing]] = field(
        default=lambda _decompositions: ()
    )
    """Pictures, given decompositions of the first arm by the name of their method."""
    _nulls: dict[tuple[OnInputs, int, int], float] = field(
        default_factory=dict, init=False, repr=False
    )
    _nulls_of_projections: dict[int, list[float]] = field(
        default_factory=dict, init=False, repr=False
    )
    _standard: dict[OnInputs, Tensor] = field(default_factory=dict, init=False, repr=False)
    """Truths on the interventional inputs, as correlations take them."""

    def __post_init__(self) -> None:
        _check_activations(self)
        _check_truths(self)
        _check_nulls(self)

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def scores(self, arm: Arm, decomposition: Decomposition) -> Scores:
        """What a decomposition found in an arm."""
        return self._scores(arm, self._latents(decomposition))

    def scores_in_arms(self, decomposition: Decomposition) -> list[Scores]:
        """The same in every arm, encoding once: the arms' activations are the same."""
        latents = self._latents(decomposition)
        return [self._scores(arm, latents) for arm in self.arms]

    def scores_of(
        self,
        arm: Arm,
        values: Float[Tensor, "interventional latent"],
        *,
        directions: Float[Tensor, "latent d"] | None = None,
        covectors: Float[Tensor, "latent d"] | None = None,
        data_values: Float[Tensor, "input latent"] | None = None,
    ) -> Scores:
        """The same from latent values: for oracles, which need not encode anything.

        Args:
            values: on the arm's interventional inputs.
            directions: what a unit of each latent writes; needed for S_graph.
            covectors: what each latent is read with; needed where directions are matched.
            data_values: on the arm's data; needed for S_graph.
        """
        on_data = None if data_values is None else lambda: data_values
        return self._scores(
            arm,
            Latents(values=values, directions=directions, covectors=covectors, data_values=on_data),
        )

    def null(self, arm: Arm, truth: Truth, width: int, l0: int) -> float:
        """Match that chance reaches with `width` latents of which `l0` are active."""
        key = on_inputs(arm, truth)
        if (key, width, l0) not in self._nulls:
            if self.similarity == "directions":
                self._nulls[key, width, l0] = null_match_of_directions(
                    arm.activations, _covectors(truth), width=width, seed=self.seed
                )
            else:
                self._find_nulls(width, l0)
        return self._nulls[key, width, l0]

    def affinities(self, decomposition: Decomposition) -> list[float]:
        """How near a decomposition is to each arm's model truth."""
        if self.affinity is not None:
            return [self.affinity(arm, decomposition) for arm in self.arms]
        return [scores.match_model for scores in self.scores_in_arms(decomposition)]

    def nearest(
        self, arm: Arm, decomposition: Decomposition
    ) -> tuple[Float[Tensor, " latent"], Float[Tensor, " latent"]]:
        """Each latent's largest similarity to a feature of the model, and of the activations."""
        latents = self._latents(decomposition)
        model, activations = (
            self._similarity(arm, truth, latents).amax(1)
            for truth in (arm.model_truth, arm.activations_truth)
        )
        return model, activations

    def _latents(self, decomposition: Decomposition) -> Latents:
        first = self.arms[0]
        return Latents(
            values=first.codes(decomposition).dense(),
            directions=decomposition.directions,
            covectors=decomposition.covectors,
            data_values=cache(lambda: decomposition.encode(first.activations).dense()),
        )

    def _scores(self, arm: Arm, latents: Latents) -> Scores:
        model, activations = (
            corrected(
                self._match(arm, truth, latents),
                self.null(arm, truth, latents.width, latents.l0),
            )
            for truth in (arm.model_truth, arm.activations_truth)
        )
        read, graph = arm.model_truth.covectors, float("nan")
        if latents.directions is not None and latents.data_values is not None and read is not None:
            active = is_active(arm.model_truth.values(arm.data))
            graph = graph_score(latents.data_values(), latents.directions, read, active)
        return Scores(match_model=model, match_activations=activations, s_graph=graph)

    def _match(self, arm: Arm, truth: Truth, latents: Latents) -> float:
        key = on_inputs(arm, truth)
        if key not in latents.matches:
            latents.matches[key] = match(self._similarity(arm, truth, latents))
        return latents.matches[key]

    def _find_nulls(self, width: int, l0: int) -> None:
        """For all truths at once: the random dictionaries are the same for each."""
        truths = {
            on_inputs(arm, truth): (arm, truth)
            for arm in self.arms
            for truth in (arm.model_truth, arm.activations_truth)
        }
        activations = self.arms[0].interventional_activations
        standards = [self._standardised(*place) for place in truths.values()]
        if width not in self._nulls_of_projections:
            self._nulls_of_projections[width] = nulls_of_projections(
                activations, standards, width=width, seed=self.seed
            )
        nulls = self._nulls_of_projections[width]
        if l0 < width:
            sparse = nulls_of_largest(activations, standards, width=width, l0=l0, seed=self.seed)
            nulls = list(map(max, nulls, sparse))
        self._nulls.update(
            {(key, width, l0): null for key, null in zip(truths, nulls, strict=True)}
        )

    def _standardised(self, arm: Arm, truth: Truth) -> Tensor:
        key = on_inputs(arm, truth)
        if key not in self._standard:
            self._standard[key] = standardised(truth.values(arm.interventional))
        return self._standard[key]

    def _similarity(
        self, arm: Arm, truth: Truth, latents: Latents
    ) -> Float[Tensor, "latent feature"]:
        if self.similarity == "values":
            return correlation_with(latents.values, self._standardised(arm, truth))
        features = _covectors(truth)
        given = (latents.covectors, latents.directions)
        found = [cosine(vectors, features) for vectors in given if vectors is not None]
        return torch.stack(found).amax(0)


def _covectors(truth: Truth) -> Tensor:
    if truth.covectors is None:
        raise ValueRangeError(
            "A testbed that matches directions must give its truths covectors; got none for "
            f"{truth.names[0]!r}. Pass covectors=[feature, d]."
        )
    return truth.covectors


def _check_activations(testbed: Testbed) -> None:
    """Refuse arms that an activation-only method could tell apart."""
    names = [arm.name for arm in testbed.arms]
    if not names or len(set(names)) < len(names):
        raise ValueRangeError(
            f"A testbed must have arms of different names; got {names}. Name each once."
        )
    first = testbed.arms[0]
    for other in testbed.arms[1:]:
        for what, mine, theirs in (
            ("data", first.activations, other.activations),
            ("interventional", first.interventional_activations, other.interventional_activations),
        ):
            if not torch.equal(mine, theirs):
                raise ValueRangeError(
                    "The arms of a testbed must have bit-identical activations; got "
                    f"{first.name!r} and {other.name!r}, which differ on their {what} inputs. "
                    "Share the weights up to the site, and the inputs."
                )


def _check_truths(testbed: Testbed) -> None:
    """Refuse truths that are constant, or that no score could tell apart."""
    for arm in testbed.arms:
        for truth in (arm.model_truth, arm.activations_truth):
            values = truth.values(arm.interventional)
            constant = (values.std(0) <= 1e-6 * values.abs().amax(0)).nonzero()[:, 0]
            if len(constant):
                raise ValueRangeError(
                    "Every feature of a truth must vary on the interventional inputs; got "
                    f"{truth.names[int(constant[0])]!r} of arm {arm.name!r}, which is constant. "
                    "Leave it out, or widen the interventional distribution."
                )
    for number, arm in enumerate(testbed.arms):
        for other in testbed.arms[number + 1 :]:
            if _coincide(testbed, arm, arm.model_truth, other.model_truth):
                raise ValueRangeError(
                    f"The model truths of different arms must differ; got {arm.name!r} and "
                    f"{other.name!r}, whose features are the same. Change what one reader uses."
                )
    if all(_coincide(testbed, a, a.model_truth, a.activations_truth) for a in testbed.arms):
        raise ValueRangeError(
            "The features of the model and of the activations must differ in at least one arm; got "
            f"the same in all of {testbed.name!r}. Nothing could be told apart there."
        )


def _coincide(testbed: Testbed, arm: Arm, one: Truth, other: Truth) -> bool:
    if len(one) != len(other):
        return False
    if testbed.similarity == "directions":
        similarity = cosine(_covectors(one), _covectors(other))
    else:
        similarity = correlation(one.values(arm.interventional), other.values(arm.interventional))
    return match(similarity) > COINCIDE


def _check_nulls(testbed: Testbed) -> None:
    """Refuse a testbed on which random dictionaries find the truth."""
    for arm in testbed.arms:
        for title, truth in (("model", arm.model_truth), ("activations", arm.activations_truth)):
            null = testbed.null(arm, truth, testbed.size.width, testbed.size.k)
            if not null <= DEGENERATE:
                raise ValueRangeError(
                    f"The null of a truth must lie below {DEGENERATE}; got {null:.3f} for the "
                    f"features of the {title} in arm {arm.name!r}: random dictionaries of "
                    f"{testbed.size.width} latents match them already. Use fewer latents, or a "
                    "wider site."
                )
