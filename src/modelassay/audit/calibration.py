"""How well each piece of evidence told model from activations where the truth was known.

`calibration.json` is part of the package; `python -m tools.calibrate` writes it. Thresholds were
set on one set of seeds; everything in the file was measured on another.
"""

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from modelassay.core.errors import CorruptFileError
from modelassay.core.files import read_json
from modelassay.evidence.auroc import Auroc

SCHEMA_VERSION = 1
PATH = Path(__file__).with_name("calibration.json")
PLANTED = "planted language models"
TESTBEDS = "testbeds"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceCalibration:
    """One quantity's AUROC at telling features of the model from features of the activations."""

    name: str
    """Of the evidence, or of a usual metric."""
    title: str
    lower_is_better: bool
    in_audit: bool
    """Whether an audit reports it per latent; if not, it is a latent's part in a usual metric."""
    auroc: dict[str, Auroc]
    """Where ("planted language models", "testbeds") -> AUROC there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictCalibration:
    """The final verdict where the truth is known."""

    auroc: Auroc
    undetermined: float
    """Share of all trials."""
    shares: dict[str, dict[str, float]]
    """How a feature is used ("common", "ignored", …) -> verdict -> share."""
    counts: dict[str, int]
    """How a feature is used -> trials."""
    found: float
    """Share of the planted features that the dictionaries found, and that could be judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What an audit's evidence is worth, measured."""

    evidence: tuple[EvidenceCalibration, ...]
    verdict: VerdictCalibration
    setting_verdict: VerdictCalibration
    """The same on the seeds that the thresholds were set on: better than it should be."""
    setting_seeds: tuple[int, ...]
    """On which thresholds were set."""
    reporting_seeds: tuple[int, ...]
    """On which everything here was measured."""
    facts: dict[str, Any]
    """Dictionary, tokens, samples, versions."""

    def of(self, name: str) -> EvidenceCalibration | None:
        """The calibration of an evidence or metric; None if it was not calibrated."""
        return next((each for each in self.evidence if each.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The content of `calibration.json`."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


@cache
def stored_calibration() -> Calibration:
    """The calibration that comes with the package.

    Raises:
        CorruptFileError: if the file is not one that this version reads.
    """
    return read_calibration(PATH)


def read_calibration(path: Path) -> Calibration:
    """A calibration from its file.

    Raises:
        CorruptFileError: if the file is of another schema or lacks a part.
    """
    content = read_json(path)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise CorruptFileError(
            f"{str(path)!r} must have schema_version {SCHEMA_VERSION}; got "
            f"{content.get('schema_version')!r}. Write it anew with: python -m tools.calibrate"
        )
    try:
        return Calibration(
            evidence=tuple(
                EvidenceCalibration(**entry | {"auroc": _aurocs(entry["auroc"])})
                for entry in content["evidence"]
            ),
            verdict=_verdict(content["verdict"]),
            setting_verdict=_verdict(content["setting_verdict"]),
            setting_seeds=tuple(content["setting_seeds"]),
            reporting_seeds=tuple(content["reporting_seeds"]),
            facts=content["facts"],
        )
    except (KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{str(path)!r} must be a whole calibration; got one that lacks or adds {error}. "
            "Write it anew with: python -m tools.calibrate"
        ) from error


def _aurocs(entries: dict[str, dict[str, Any]]) -> dict[str, Auroc]:
    return {place: _auroc(entry) for place, entry in entries.items()}


def _auroc(entry: dict[str, Any]) -> Auroc:
    ends = {k: float("nan") if entry[k] is None else entry[k] for k in ("low", "high")}
    numbers: dict[str, Any] = entry | ends
    return Auroc(**numbers)


def _verdict(entry: dict[str, Any]) -> VerdictCalibration:
    parts: dict[str, Any] = entry | {"auroc": _auroc(entry["auroc"])}
    return VerdictCalibration(**parts)
