"""The result of an audit: passports in columns, the evidence behind them, and its provenance.

Passports are stored by column (one tuple or tensor per question over all latents) because that
is how they are computed, filtered and drawn; `Audit.passport(i)` gives one latent's row.
"""

from collections import Counter
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.provenance import Provenance
from modelassay.evidence.evidence import Evidence

VERDICTS = ("model", "activations", "undetermined", "dead")
QUESTIONS = ("written", "read", "learned", "stable")


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """A number that a verdict depends on, and why it is that number."""

    name: str
    value: float
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReconstructionRow:
    """One decomposition's evidence as a whole."""

    name: str
    evidence: tuple[Evidence, ...]

    def __getitem__(self, name: str) -> Evidence:
        for evidence in self.evidence:
            if evidence.name == name:
                return evidence
        raise UnknownNameError("Evidence", name, [e.name for e in self.evidence])


@dataclass(frozen=True, kw_only=True, slots=True)
class VarianceMap:
    """Variance in the Euclidean and in the Fisher metric, per latent and per null direction."""

    euclidean: Float[Tensor, " latent"]
    """Variance of the latent times its direction's squared norm, activation units squared."""
    fisher: Float[Tensor, " latent"]
    """What the output sees of it: second-order KL in nats per token."""
    null_euclidean: Float[Tensor, " direction"]
    null_fisher: Float[Tensor, " direction"]
    null_kind: tuple[str, ...]
    """"random" or "pca", per null direction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Held-out examples of all latents, stored sparsely.

    Example e shows the tokens `starts[e] … starts[e] + lengths[e] - 1` of context `contexts[e]`.
    Its activations are `values[v]` at window offset `offsets[v]` for v from `value_starts[e]` to
    `value_starts[e + 1] - 1`.
    """

    latents: Int[Tensor, " example"]
    groups: Int[Tensor, " example"]
    """0 = top; q = 1, 2, … = quantile group q of the active values, 1 the highest."""
    contexts: Int[Tensor, " example"]
    """Row of `tokens`."""
    starts: Int[Tensor, " example"]
    lengths: Int[Tensor, " example"]
    peaks: Int[Tensor, " example"]
    """Offset of the peak within the window."""
    value_starts: Int[Tensor, " example_plus_one"]
    offsets: Int[Tensor, " value"]
    values: Float[Tensor, " value"]
    tokens: Int[Tensor, "context token"]
    """Only the contexts that some example shows."""
    documents: tuple[str, ...]
    """Name of each of those contexts' document."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Concepts:
    """Best matches in a concept library, three per latent, best first."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    indices: Int[Tensor, "latent rank"]
    """Into `names`; -1 where there is no match to report."""
    f1: Float[Tensor, "latent rank"]
    low: Float[Tensor, "latent rank"]
    high: Float[Tensor, "latent rank"]
    null_f1: Float[Tensor, " latent"]
    """The best F1 that chance reaches for this latent over the whole library."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentDetails:
    """What a reader looks at to understand a latent; none of it enters the verdict."""

    examples: Examples
    histogram_counts: Int[Tensor, "latent bin"]
    histogram_edges: Float[Tensor, "latent edge"]
    promoted: Int[Tensor, "latent rank"]
    promoted_logits: Float[Tensor, "latent rank"]
    suppressed: Int[Tensor, "latent rank"]
    suppressed_logits: Float[Tensor, "latent rank"]
    neighbours: Int[Tensor, "latent rank"]
    neighbour_cosines: Float[Tensor, "latent rank"]
    neighbour_null: float
    """Typical nearest-neighbour cosine among as many random directions."""
    concepts: Concepts | None
    """None for a corpus that the concept library cannot label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passport:
    """One latent's evidence and verdict."""

    latent: int
    verdict: str
    reason: str
    answers: dict[str, str]
    estimates: dict[str, dict[str, float]]
    """Evidence name -> value, low, high, null, n (and p_value, q_value where there are any)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """Which latents of a decomposition are features of the model, with the evidence."""

    subject: str
    site: str
    dictionary: str
    width: int
    d_model: int
    verdicts: tuple[str, ...]
    """One of `VERDICTS` per latent."""
    reasons: tuple[str, ...]
    """One plain sentence per latent."""
    answers: dict[str, tuple[str, ...]]
    """Question of `QUESTIONS` -> "yes", "no" or "unclear" per latent."""
    latent_evidence: tuple[Evidence, ...]
    reconstruction: tuple[ReconstructionRow, ...]
    """The audited decomposition first, then the baselines."""
    baselines: dict[str, dict[str, float]]
    """Baseline -> verdict -> share of its audited latents."""
    variance: VarianceMap
    details: LatentDetails
    vocabulary: tuple[str, ...]
    """Token strings by id. Hostile input: escape before showing."""
    thresholds: tuple[Threshold, ...]
    provenance: Provenance

    def shares(self) -> dict[str, float]:
        """Verdict -> share of latents, all of `VERDICTS`, summing to 1."""
        return verdict_shares(self.verdicts)

    def evidence(self, name: str) -> Evidence:
        """The latent-level evidence of that name.

        Raises:
            UnknownNameError: if the audit holds none of that name.
        """
        for evidence in self.latent_evidence:
            if evidence.name == name:
                return evidence
        raise UnknownNameError("Evidence", name, [e.name for e in self.latent_evidence])

    def passport(self, latent: int) -> Passport:
        """One latent's row.

        Raises:
            ValueRangeError: if there is no such latent.
        """
        if not 0 <= latent < self.width:
            raise ValueRangeError(
                f"A latent must lie in 0 … {self.width - 1}; got {latent}. Choose another."
            )
        return Passport(
            latent=latent,
            verdict=self.verdicts[latent],
            reason=self.reasons[latent],
            answers={question: answers[latent] for question, answers in self.answers.items()},
            estimates={e.name: e.at(latent) for e in self.latent_evidence},
        )


def verdict_shares(verdicts: tuple[str, ...]) -> dict[str, float]:
    """Verdict -> share, all of `VERDICTS`."""
    counts = Counter(verdicts)
    return {verdict: counts[verdict] / len(verdicts) for verdict in VERDICTS}
