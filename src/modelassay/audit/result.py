"""The result of an audit: passports in columns, the evidence behind them, and its provenance.

Passports are stored by column (one tuple or tensor per question over all latents) because that
is how they are computed, filtered and drawn; `Audit.passport(i)` gives one latent's row.

On disk an audit is `audit.json`, to read and to script against, and `audit.safetensors`.
`audit.json` holds, at its top level:

| key | content |
|---|---|
| `schema_version` | 1 |
| `subject`, `site`, `dictionary`, `width`, `d_model` | what was audited |
| `verdicts` | class -> share of latents |
| `reconstruction` | per decomposition: its name and its evidence with interval and null |
| `baselines` | baseline -> class -> share of its audited latents |
| `latents` | columns over all latents: `verdict`, `reason`, `answers` |
| `evidence` | what each latent-level evidence means; its numbers lie in `audit.safetensors` |
| `thresholds` | name, value, reason |
| `provenance` | versions, seed, device, time, and hashes of model, corpus and dictionary |

Readers must refuse a `schema_version` that they do not know.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from modelassay.audit.parts import (
    Concepts,
    Examples,
    LatentDetails,
    Passport,
    ReconstructionRow,
    Threshold,
    VarianceMap,
    verdict_shares,
)
from modelassay.audit.storage import (
    evidence_tensors,
    latent_evidence_from,
    meaning_of,
    numbers,
    part_from,
    part_tensors,
    row_from,
)
from modelassay.core.errors import CorruptFileError, UnknownNameError, ValueRangeError
from modelassay.core.files import read_json, read_tensors, write_json, write_tensors
from modelassay.core.provenance import Provenance
from modelassay.evidence.evidence import Evidence

SCHEMA_VERSION = 1


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

    def summary(self) -> dict[str, Any]:
        """The content of `audit.json`, which is also what `modelassay audit --json` prints."""
        concepts = self.details.concepts
        return {
            "schema_version": SCHEMA_VERSION,
            "subject": self.subject,
            "site": self.site,
            "dictionary": self.dictionary,
            "width": self.width,
            "d_model": self.d_model,
            "verdicts": self.shares(),
            "reconstruction": [
                {"name": row.name, "evidence": {e.name: numbers(e) for e in row.evidence}}
                for row in self.reconstruction
            ],
            "baselines": self.baselines,
            "latents": {
                "verdict": self.verdicts,
                "reason": self.reasons,
                "answers": self.answers,
            },
            "evidence": {e.name: meaning_of(e) for e in self.latent_evidence},
            "concepts": None
            if concepts is None
            else {"names": concepts.names, "descriptions": concepts.descriptions},
            "documents": self.details.examples.documents,
            "neighbour_null": self.details.neighbour_null,
            "null_directions": self.variance.null_kind,
            "vocabulary": self.vocabulary,
            "thresholds": [
                {"name": t.name, "value": t.value, "reason": t.reason} for t in self.thresholds
            ],
            "provenance": self.provenance.as_json(),
        }

    def save(self, directory: str | Path) -> None:
        """Write `audit.safetensors`, then `audit.json`: there is JSON only beside whole tensors."""
        tensors: dict[str, Tensor] = {}
        for evidence in self.latent_evidence:
            tensors |= evidence_tensors(evidence)
        tensors |= part_tensors("variance", self.variance)
        tensors |= part_tensors("details", self.details)
        tensors |= part_tensors("examples", self.details.examples)
        if self.details.concepts is not None:
            tensors |= part_tensors("concepts", self.details.concepts)
        write_tensors(Path(directory) / "audit.safetensors", tensors)
        write_json(Path(directory) / "audit.json", self.summary())


def load_audit(directory: str | Path) -> Audit:
    """Read an audit back.

    Raises:
        CorruptFileError: if a file is damaged, of another schema, or lacks a part.
        FileNotFoundError: if there is no audit.
    """
    path = Path(directory) / "audit.json"
    content = read_json(path)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise CorruptFileError(
            f"{str(path)!r} must have schema_version {SCHEMA_VERSION}; got "
            f"{content.get('schema_version')!r}. Read it with the modelassay that wrote it."
        )
    tensors = read_tensors(Path(directory) / "audit.safetensors")
    try:
        return _assemble(content, tensors)
    except KeyError as error:
        raise CorruptFileError(
            f"The audit in {str(directory)!r} must be complete; got none of {error}. "
            "Run the audit again."
        ) from error


def _assemble(content: dict[str, Any], tensors: dict[str, Tensor]) -> Audit:
    concepts = None
    if content["concepts"] is not None:
        words = {name: tuple(value) for name, value in content["concepts"].items()}
        concepts = part_from(Concepts, "concepts", tensors, **words)
    examples = part_from(Examples, "examples", tensors, documents=tuple(content["documents"]))
    details = part_from(
        LatentDetails,
        "details",
        tensors,
        examples=examples,
        concepts=concepts,
        neighbour_null=content["neighbour_null"],
    )
    latents = content["latents"]
    return Audit(
        subject=content["subject"],
        site=content["site"],
        dictionary=content["dictionary"],
        width=content["width"],
        d_model=content["d_model"],
        verdicts=tuple(latents["verdict"]),
        reasons=tuple(latents["reason"]),
        answers={question: tuple(given) for question, given in latents["answers"].items()},
        latent_evidence=latent_evidence_from(content["evidence"], tensors),
        reconstruction=tuple(row_from(entry) for entry in content["reconstruction"]),
        baselines=content["baselines"],
        variance=part_from(
            VarianceMap, "variance", tensors, null_kind=tuple(content["null_directions"])
        ),
        details=details,
        vocabulary=tuple(content["vocabulary"]),
        thresholds=tuple(Threshold(**entry) for entry in content["thresholds"]),
        provenance=Provenance.from_json(content["provenance"]),
    )
