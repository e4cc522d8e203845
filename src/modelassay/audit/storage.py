"""Evidence and parts of an audit, to and from JSON columns and tensors."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from modelassay.audit.parts import ReconstructionRow
from modelassay.evidence.evidence import Evidence

_EVIDENCE_TENSORS = ("value", "low", "high", "null", "p_value", "q_value", "n")


def numbers(evidence: Evidence) -> dict[str, Any]:
    """A decomposition-level evidence for JSON: its numbers and its meaning."""
    entry: dict[str, Any] = {
        "value": evidence.value[0],
        "low": evidence.low[0],
        "high": evidence.high[0],
        "null": evidence.null[0],
        "n": evidence.n[0],
    }
    for name in ("p_value", "q_value"):
        tensor = getattr(evidence, name)
        entry[name] = None if tensor is None else tensor[0]
    return entry | meaning_of(evidence)


def meaning_of(evidence: Evidence) -> dict[str, Any]:
    """Everything about an evidence but its numbers."""
    return {
        field.name: getattr(evidence, field.name)
        for field in fields(evidence)
        if field.name not in _EVIDENCE_TENSORS
    }


def evidence_tensors(evidence: Evidence) -> dict[str, Tensor]:
    """A latent-level evidence's numbers, named `evidence.<name>.<part>`."""
    parts = {part: getattr(evidence, part) for part in _EVIDENCE_TENSORS}
    return {f"evidence.{evidence.name}.{k}": v for k, v in parts.items() if v is not None}


def part_tensors(prefix: str, part: Any) -> dict[str, Tensor]:
    """The tensor fields of a dataclass, named `<prefix>.<field>`."""
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return {f"{prefix}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}


Part = TypeVar("Part")


def part_from(kind: type[Part], prefix: str, tensors: dict[str, Tensor], **rest: Any) -> Part:
    """A dataclass from the tensors below a prefix and the given other fields."""
    loaded = {
        field.name: tensors[f"{prefix}.{field.name}"]
        for field in fields(kind)  # type: ignore[arg-type]
        if field.name not in rest and field.default is MISSING
    }
    return kind(**loaded, **rest)


def evidence_from(meaning: dict[str, Any], numbers: dict[str, Tensor | None]) -> Evidence:
    """The inverse of `meaning_of` with the tensors given apart."""
    words = {k: tuple(v) if isinstance(v, list) else v for k, v in meaning.items()}
    return Evidence(**words, **numbers)  # type: ignore[arg-type]


def row_from(entry: dict[str, Any]) -> ReconstructionRow:
    """A reconstruction row from its JSON entry."""
    evidence = []
    for content in entry["evidence"].values():
        meaning = {k: v for k, v in content.items() if k not in _EVIDENCE_TENSORS}
        numbers: dict[str, Tensor | None] = {
            part: _scalar(content[part], part) for part in _EVIDENCE_TENSORS
        }
        numbers |= {part: None for part in ("p_value", "q_value") if content[part] is None}
        evidence.append(evidence_from(meaning, numbers))
    return ReconstructionRow(name=entry["name"], evidence=tuple(evidence))


def _scalar(value: float | int | None, part: str) -> Tensor:
    if part == "n":
        return torch.tensor([int(value or 0)])
    return torch.tensor([float("nan") if value is None else float(value)])


def latent_evidence_from(
    meanings: dict[str, dict[str, Any]], tensors: dict[str, Tensor]
) -> tuple[Evidence, ...]:
    """The latent-level evidence from its meanings (JSON) and its tensors."""
    return tuple(
        evidence_from(
            meaning, {part: tensors.get(f"evidence.{name}.{part}") for part in _EVIDENCE_TENSORS}
        )
        for name, meaning in meanings.items()
    )
