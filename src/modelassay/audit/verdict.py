"""The verdict rule: from four answers per latent to one word, and the sentence that explains it.

Each question is answered "yes" or "no" only if the whole 95 % interval of its evidence lies on one
side of a threshold (and, for *read*, the test survives the false discovery rate); else "unclear".

| question | evidence | yes | no |
|---|---|---|---|
| written | share of variance not predictable from the tokens | above 1/4 | below 1/4 |
| read | log(mean effect / covariance-matched control's) | above 0, q <= .05 | below 0, q <= .05 |
| learned | best match in null twins | below .7 | above .7 |
| stable | best match in a second seed | above .7 | below .7 |

Then, in this order:

- *dead*: the latent never fires on any audited token;
- *undetermined*: it fires on fewer held-out tokens, or in fewer held-out documents, than a claim
  needs;
- *model*: written, read, learned and stable are all "yes";
- *activations*: read is "no"; or written and learned are both "no" and read is not "yes";
- *undetermined*: everything else, with the answers that stand in the way.

The rule is deliberately lopsided. "Model" needs four answers because each of the four has an
innocent explanation that the others rule out; "activations" needs positive evidence as well: that
the network ignores the direction, or that the tokens and an untrained network already give it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.audit.parts import QUESTIONS, Threshold
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import MIN_DOCUMENTS as FEWEST_DOCUMENTS
from modelassay.evidence.intervals import MIN_FIRINGS as FEWEST_FIRINGS

MIN_FIRINGS = Threshold(
    name="minimum held-out firings",
    value=float(FEWEST_FIRINGS),
    reason="A 95 % interval of a share of 1/2 from 30 draws reaches 0.18 to each side; from fewer "
    "it is so wide that only extreme latents could ever clear a threshold (ours).",
)
MIN_DOCUMENTS = Threshold(
    name="minimum held-out documents with a firing",
    value=float(FEWEST_DOCUMENTS),
    reason="Intervals are over documents. A bootstrap over fewer than five clusters is too narrow, "
    "and a latent of one document may be that document.",
)
WRITTEN = Threshold(
    name="written share",
    value=0.25,
    reason="Latents made to be exact lookups of the last one or two tokens read at most 0.18 on "
    "the bundled corpus (95th percentile; `python -m benchmarks.lookup_floor`), because some pairs "
    "are too rare to be learned. Above 1/4 something else than such a lookup is at work; of the "
    "features that planted models compute from their context, 95 % read above 0.6 (setting seeds "
    "0, 1, 2). Exact lookups of three tokens read 0.54: those cannot be told from computation with "
    "this much text.",
)
READ = Threshold(
    name="read: log effect ratio",
    value=0.0,
    reason="At 0 the latent moves the predictions exactly as much as its controls. On planted "
    "models (setting seeds 0, 1, 2; `python -m tools.calibrate`) this cut tells features of the "
    "model from ignored ones with a balanced accuracy of 0.977; the best one, between 0.12 and "
    "0.18, reaches 0.981, which is no reason to leave 0.",
)
READ_Q = Threshold(
    name="read: false discovery rate",
    value=0.05,
    reason="Of the latents called read (or not read), at most 5 % are expected to be so by chance.",
)
MATCH = Threshold(
    name="match",
    value=0.7,
    reason="A correlation of 0.7 means that half of the variance is shared: the two latents are "
    "then more alike than different (ours). On planted models (setting seeds 0, 1, 2) no feature "
    "matches a null twin above 0.38, and 95 % match a second seed above 0.97.",
)
THRESHOLDS = (MIN_FIRINGS, MIN_DOCUMENTS, WRITTEN, READ, READ_Q, MATCH)


@dataclass(frozen=True, kw_only=True, slots=True)
class Firings:
    """How often each latent fires."""

    anywhere: Int[Tensor, " latent"]
    """Tokens, fit and held-out together."""
    heldout: Int[Tensor, " latent"]
    """Held-out tokens."""
    heldout_documents: Int[Tensor, " latent"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Verdict, reason and answers, per latent."""

    verdicts: tuple[str, ...]
    reasons: tuple[str, ...]
    answers: dict[str, tuple[str, ...]]


def judge(
    *, written: Evidence, read: Evidence, learned: Evidence, stable: Evidence, firings: Firings
) -> Judgement:
    """Apply the rule to every latent.

    Args:
        written: share of variance that the tokens do not predict, in (-inf, 1].
        read: log ratio of the latent's mean effect to its controls', with q-values.
        learned: best absolute correlation with a latent of a null twin's dictionary.
        stable: best absolute correlation with a latent of the second seed's dictionary.
    """
    significant = read.q_value if read.q_value is not None else torch.full_like(read.value, 1.0)
    tables = {
        "written": _side(written.low > WRITTEN.value, written.high < WRITTEN.value),
        "read": _side(
            (read.low > READ.value) & (significant <= READ_Q.value),
            (read.high < READ.value) & (significant <= READ_Q.value),
        ),
        "learned": _side(learned.high < MATCH.value, learned.low > MATCH.value),
        "stable": _side(stable.low > MATCH.value, stable.high < MATCH.value),
    }
    evidence = {"written": written, "read": read, "learned": learned, "stable": stable}
    verdicts, reasons = [], []
    for latent in range(len(written.value)):
        answers = {question: tables[question][latent] for question in QUESTIONS}
        counts = (
            int(firings.anywhere[latent]),
            int(firings.heldout[latent]),
            int(firings.heldout_documents[latent]),
        )
        values = {question: float(evidence[question].value[latent]) for question in QUESTIONS}
        verdict, reason = verdict_of(answers, counts, values)
        verdicts.append(verdict)
        reasons.append(reason)
    return Judgement(verdicts=tuple(verdicts), reasons=tuple(reasons), answers=tables)


def _side(yes: Bool[Tensor, " latent"], no: Bool[Tensor, " latent"]) -> tuple[str, ...]:
    # Comparisons with NaN (not measured) are False on both sides, hence "unclear".
    return tuple("yes" if y else "no" if n else "unclear" for y, n in zip(yes, no, strict=True))


def verdict_of(
    answers: dict[str, str], firings: tuple[int, int, int], values: dict[str, float]
) -> tuple[str, str]:
    """The rule for one latent: its verdict and the sentence that explains it.

    Args:
        answers: question -> "yes", "no" or "unclear".
        firings: tokens anywhere, held-out tokens, held-out documents.
        values: question -> estimate, for the sentence only.
    """
    anywhere, heldout, documents = firings
    if anywhere == 0:
        return "dead", "Never fires on any audited token."
    if heldout < MIN_FIRINGS.value or documents < MIN_DOCUMENTS.value:
        return "undetermined", (
            f"Fires on {heldout} held-out tokens in {documents} documents; a claim needs "
            f"{MIN_FIRINGS.value:.0f} in {MIN_DOCUMENTS.value:.0f}."
        )
    if all(answers[question] == "yes" for question in QUESTIONS):
        return "model", (
            f"Computed rather than given ({values['written']:.0%} of its variance is not in the "
            "tokens), read more than matched directions, absent from untrained twins, and found "
            "again with a second seed."
        )
    if answers["read"] == "no":
        return "activations", (
            "The rest of the network reacts less to it than to a direction of equal size drawn "
            "from the activations' own covariance."
        )
    if answers["written"] == answers["learned"] == "no" and answers["read"] != "yes":
        return "activations", (
            f"The tokens predict it ({1 - values['written']:.0%} of its variance) and a twin with "
            f"untrained weights has it too (correlation {values['learned']:.2f})."
        )
    return "undetermined", _open_questions(answers)


_OBSTACLES = {
    ("written", "no"): "the tokens alone predict it",
    ("written", "unclear"): "how much the tokens predict is unclear",
    ("read", "unclear"): "its effect is not told apart from matched directions'",
    ("learned", "no"): "a twin with untrained weights has it too",
    ("learned", "unclear"): "whether untrained twins have it is unclear",
    ("stable", "no"): "a second seed does not find it",
    ("stable", "unclear"): "whether a second seed finds it is unclear",
}


def _open_questions(answers: dict[str, str]) -> str:
    positive = {
        "written": "computed",
        "read": "read",
        "learned": "absent from untrained twins",
        "stable": "stable",
    }
    held = [positive[q] for q in QUESTIONS if answers[q] == "yes"]
    missing = [_OBSTACLES[q, answers[q]] for q in QUESTIONS if answers[q] != "yes"]
    start = f"{', '.join(held).capitalize()}; but " if held else ""
    sentence = start + "; ".join(missing) + "."
    return sentence[0].upper() + sentence[1:]


def firings_of(heldout: Float[Tensor, "document latent"], fit: Int[Tensor, " latent"]) -> Firings:
    """Firing counts from a table of held-out firings per document and the counts on fit tokens."""
    total = heldout.sum(0).to(torch.int64)
    return Firings(anywhere=total + fit, heldout=total, heldout_documents=(heldout > 0).sum(0))
