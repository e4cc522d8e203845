"""Two models with the same activations and different uses of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import Progress
from modelassay.core.randomness import derived
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.testbeds.planted.calibration import RESERVED
from modelassay.testbeds.planted.plan import DEFAULT_COUNTS, PlannedFeature, draw_plan
from modelassay.testbeds.planted.planting import Planted, plant
from modelassay.testbeds.planted.widening import widened

DEFAULT_LAYER = 2
CALIBRATION_TOKENS = 50_000
"""At most so many tokens of the fit side set thresholds and sizes (ours)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedPair:
    """Two language models that agree to the bit up to `site`, and read complementary features.

    A feature that is read in one arm is ignored in the other. Whatever looks at activations alone
    says the same in both arms, so that over both it cannot tell what is read: its AUROC is 1/2.

    An ignored feature lies in the null space of every matrix behind it. What is left is its share
    of the norms' denominators: removing one moves the predictions by about a twentieth of what a
    direction of its size drawn from the activations' covariance does (0.003 against 0.06 nats in
    the bundled model, seed 0), and turning its sign, which keeps the norm, by nothing.
    """

    subjects: tuple[Subject, Subject]
    """The arms."""
    planted: Planted
    read: Bool[Tensor, "arm feature"]
    """Which features each arm reads: features of the model. The others are features of the
    activations alone."""

    @property
    def site(self) -> Site:
        """The site at which the arms agree: the residual stream behind the features' block."""
        return self.planted.site

    @property
    def plan(self) -> tuple[PlannedFeature, ...]:
        """What was planted."""
        return self.planted.plan

    @property
    def directions(self) -> Float[Tensor, "feature wide"]:
        """Orthonormal; where each feature is written."""
        return self.planted.directions

    def kind(self, feature: int, arm: int) -> str:
        """ "ignored" or, if it is read, "common", "combination" or "rare"."""
        return self.plan[feature].kind if bool(self.read[arm, feature]) else "ignored"


def planted_arms(
    subject: Subject,
    contexts: TokenizedCorpus,
    *,
    seed: int,
    layer: int = DEFAULT_LAYER,
    counts: Mapping[str, int] | None = None,
    calibration_tokens: int = CALIBRATION_TOKENS,
    progress: Progress | None = None,
) -> PlantedPair:
    """Widen a Llama, plant features into it, and give each half of them readers in one of two arms.

    Args:
        subject: a verified Llama; it is left alone.
        contexts: text with a fit side, on which thresholds and sizes are set.
        seed: of every draw.
        layer: block whose MLP computes the features; they are read in the next two.
        counts: features of each kind, `DEFAULT_COUNTS` if None.
        calibration_tokens: how much of the text to use.
        progress: where to report.

    Raises:
        UnsupportedModelError: if the subject is no Llama.
        UnknownNameError: if a kind is unknown.
        ValueRangeError: if no block is left to read, or a kind cannot be halved.
        TooFewTokensError: if no text is on the fit side.
    """
    if not 0 <= layer < subject.n_layers - 1:
        raise ValueRangeError(
            f"layer must be in 0 … {subject.n_layers - 2}, so that a later block can read; got "
            f"{layer}. Choose an earlier block."
        )
    readers = tuple(range(layer + 1, min(layer + 3, subject.n_layers)))
    plan = draw_plan(DEFAULT_COUNTS if counts is None else counts, readers, derived(seed, "plan"))
    model = widened(subject.module, _extra(subject, len(plan)), derived(seed, "rotation"))
    text = contexts.select("fit")
    text = text.take(calibration_tokens, derived(seed, "calibration"))
    planted = plant(model, plan, layer, text, seed=seed, progress=progress)
    first = _half(plan, derived(seed, "halves"))
    read = torch.stack([first, ~first])
    arms = [
        load_subject(planted.with_readers(features), tokenizer=subject.tokenizer)
        for features in read
    ]
    for number, arm in enumerate(arms):
        arm.name = f"{subject.name}, planted (seed {seed}, arm {number})"
    return PlantedPair(subjects=(arms[0], arms[1]), planted=planted, read=read)


def _extra(subject: Subject, n_features: int) -> int:
    """The fewest new dimensions that hold the features and give every head an equal share."""
    least = n_features + RESERVED
    return least + -(subject.d_model + least) % subject.n_heads


def _half(plan: tuple[PlannedFeature, ...], generator: torch.Generator) -> Bool[Tensor, " feature"]:
    """A random half of each kind; the two of a pair stay together."""
    chosen = torch.zeros(len(plan), dtype=torch.bool)
    for kind in dict.fromkeys(feature.kind for feature in plan):
        leaders = torch.tensor(
            [n for n, f in enumerate(plan) if f.kind == kind and not -1 < f.partner < n]
        )
        order = torch.randperm(len(leaders), generator=generator)
        for leader in leaders[order[: len(leaders) // 2]].tolist():
            chosen[leader] = True
            if plan[leader].partner >= 0:
                chosen[plan[leader].partner] = True
    return chosen
