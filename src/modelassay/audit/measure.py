"""The latent-level measurements of one decomposition, and the judgement that follows."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.audit.settings import AuditSettings
from modelassay.audit.verdict import Judgement, firings_of, judge
from modelassay.core.progress import Progress
from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.activity import firings_by_document
from modelassay.evidence.documents import document_of_row
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.learned import learned
from modelassay.evidence.read import read
from modelassay.evidence.stable import stable, stable_geometry
from modelassay.evidence.written import written
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Codes, evidence and judgement of one decomposition."""

    codes: Codes
    """On the held-out tokens."""
    evidence: tuple[Evidence, ...]
    judgement: Judgement


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What every measurement of one audit shares."""

    subject: Subject
    fit: Harvest
    heldout: Harvest
    twin_codes: dict[str, Codes]
    settings: AuditSettings
    seed: int
    progress: Progress


def measure(
    bench: Bench,
    decomposition: Decomposition,
    second: Decomposition,
    *,
    latents: Int[Tensor, " chosen"],
    name: str,
) -> Measured:
    """Measure written, read, learned and stable, and judge.

    Args:
        second: the same kind of decomposition from other randomness.
        latents: those to measure; the others count as silent.
        name: keys the random draws.
    """
    site = bench.heldout.sites[0]
    activations = bench.heldout.activations(site)
    documents = document_of_row(bench.heldout)
    codes = decomposition.encode(activations).only(latents)
    codes_fit = decomposition.encode(bench.fit.activations(site)).only(latents)

    def draws(purpose: str) -> torch.Generator:
        return derived(bench.seed, name, purpose)

    is_written = written(codes_fit, bench.fit, codes, bench.heldout, generator=draws("written"))
    is_read = read(
        bench.subject,
        decomposition,
        codes,
        bench.heldout,
        latents=latents,
        samples_per_latent=bench.settings.read_samples,
        horizon=bench.settings.read_horizon,
        max_position=bench.settings.read_positions,
        generator=draws("read"),
        progress=bench.progress,
    )
    is_learned = learned(codes, bench.twin_codes, documents, generator=draws("learned"))
    is_stable = stable(codes, second.encode(activations), documents, generator=draws("stable"))
    geometry = stable_geometry(
        decomposition.directions, second.directions, generator=draws("geometry")
    )
    judgement = judge(
        written=is_written,
        read=is_read[0],
        learned=is_learned[0],
        stable=is_stable,
        firings=firings_of(firings_by_document(codes, documents), codes_fit.firing_counts()),
    )
    evidence = (is_written, *is_read, *is_learned, is_stable, geometry)
    return Measured(codes=codes, evidence=evidence, judgement=judgement)


def sample_of_latents(width: int, count: int, generator: torch.Generator) -> Int[Tensor, " chosen"]:
    """At most `count` latents, drawn without replacement, in order."""
    return torch.randperm(width, generator=generator)[:count].sort().values
