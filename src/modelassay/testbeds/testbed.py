"""`Testbed`: arms with identical activations and different readers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.nulls import null_match_of_directions, null_match_of_values
from modelassay.testbeds.picture import Drawing
from modelassay.testbeds.scores import Scores, corrected, correlation, cosine, graph_score, match
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
    _nulls: dict[tuple[str, str, int, int], float] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        _check_activations(self)
        _check_truths(self)
        _check_nulls(self)

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def scores(self, arm: Arm, decomposition: Decomposition) -> Scores:
        """What a decomposition found in an arm."""
        values = arm.codes(decomposition).dense()
        return self.scores_of(
            arm,
            values,
            directions=decomposition.directions,
            covectors=decomposition.covectors,
            data_values=decomposition.encode(arm.activations).dense(),
        )

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
        l0 = max(1, round(float((values != 0).sum(1).float().mean())))
        matched = [
            corrected(
                match(self._similarity(arm, truth, values, directions, covectors)),
                self.null(arm, truth, values.shape[1], l0),
            )
            for truth in (arm.model_truth, arm.activations_truth)
        ]
        read = arm.model_truth.covectors
        graph = float("nan")
        if directions is not None and data_values is not None and read is not None:
            active = is_active(arm.model_truth.values(arm.data))
            graph = graph_score(data_values, directions, read, active)
        return Scores(match_model=matched[0], match_activations=matched[1], s_graph=graph)

    def null(self, arm: Arm, truth: Truth, width: int, l0: int) -> float:
        """Match that chance reaches with `width` latents of which `l0` are active."""
        key = (arm.name, "model" if truth is arm.model_truth else "activations", width, l0)
        if key not in self._nulls:
            if self.similarity == "directions":
                found = null_match_of_directions(
                    arm.activations, _covectors(truth), width=width, seed=self.seed
                )
            else:
                found = null_match_of_values(
                    arm.interventional_activations,
                    truth.values(arm.interventional),
                    width=width,
                    l0=l0,
                    seed=self.seed,
                )
            self._nulls[key] = found
        return self._nulls[key]

    def affinities(self, decomposition: Decomposition) -> list[float]:
        """How near a decomposition is to each arm's model truth."""
        if self.affinity is not None:
            return [self.affinity(arm, decomposition) for arm in self.arms]
        return [self.scores(arm, decomposition).match_model for arm in self.arms]

    def _similarity(
        self,
        arm: Arm,
        truth: Truth,
        values: Tensor,
        directions: Tensor | None,
        covectors: Tensor | None,
    ) -> Float[Tensor, "latent feature"]:
        if self.similarity == "values":
            return correlation(values, truth.values(arm.interventional))
        features = _covectors(truth)
        found = [cosine(v, features) for v in (covectors, directions) if v is not None]
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
