"""The parts that an audit is made of."""

from collections import Counter
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import UnknownNameError
from modelassay.evidence.evidence import Evidence
from modelassay.observe.exemplars import Examples as Examples

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
    neighbours: Int[Tensor, "latent neighbour"]
    neighbour_cosines: Float[Tensor, "latent neighbour"]
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


def verdict_shares(verdicts: tuple[str, ...]) -> dict[str, float]:
    """Verdict -> share, all of `VERDICTS`."""
    counts = Counter(verdicts)
    return {verdict: counts[verdict] / len(verdicts) for verdict in VERDICTS}
