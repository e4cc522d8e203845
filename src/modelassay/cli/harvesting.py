"""The work of `modelassay harvest`."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from modelassay.activations.harvest import harvest
from modelassay.audit.run import read_corpus
from modelassay.cli.output import claim_folder
from modelassay.cli.schemas import SCHEMA_VERSION, HarvestResult, ProvenanceEntry
from modelassay.core.provenance import Provenance
from modelassay.subjects.load import load_subject

WRITTEN = ("manifest.json", "documents.json", "contexts.safetensors", "shard-*.safetensors")


def store_harvest(
    source: str,
    sites: Sequence[str],
    *,
    corpus: Path | None,
    tokens: int,
    out: Path,
    seed: int,
    device: str,
    resume: bool,
    force: bool,
) -> HarvestResult:
    """Harvest to a folder, and say what lies there now."""
    subject = load_subject(source, device=device)
    texts = read_corpus(corpus)
    chosen = [subject.resolve(site.strip()) for site in sites]
    claim_folder(out, ours=WRITTEN, force=force, resume=resume)
    stored = harvest(subject, texts, chosen, tokens=tokens, directory=out, seed=seed)
    provenance = Provenance.collect(
        seed=seed,
        device=device,
        corpus=stored.contexts.corpus.source,
        corpus_fingerprint=stored.contexts.fingerprint(),
        tokens=stored.n_tokens,
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "directory": str(out),
        "subject": stored.subject_name,
        "fingerprint": stored.subject_fingerprint,
        "sites": [str(site) for site in stored.sites],
        "tokens": stored.n_tokens,
        "contexts": len(stored.contexts),
        "provenance": cast(ProvenanceEntry, provenance.as_json()),
    }
