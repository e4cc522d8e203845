"""Where a result came from: versions, seed, device and the artefacts' hashes."""

import datetime
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

Fact = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """Everything that one needs to make a result again."""

    versions: dict[str, str]
    """Package name -> version."""
    seed: int
    device: str
    created: str
    """UTC, ISO 8601, seconds."""
    facts: dict[str, Fact]
    """What the step adds: model, weights' hash, corpus, tokens…"""

    @staticmethod
    def collect(*, seed: int, device: str = "cpu", **facts: Fact) -> "Provenance":
        """The provenance of a result that is being made now."""
        packages = ("modelassay", "torch", "transformers", "safetensors", "numpy", "scipy")
        versions = {"python": platform.python_version()}
        versions |= {name: importlib.metadata.version(name) for name in packages}
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0).isoformat()
        return Provenance(
            versions=versions, seed=seed, device=device, created=now, facts=dict(facts)
        )

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Provenance":
        """The inverse of `as_json`."""
        return Provenance(**content)


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits over names, dtypes, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
