"""The work of `modelassay contrast`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from modelassay.activations.corpus import Corpus, TokenizedCorpus, read_texts, tokenize
from modelassay.audit.run import read_corpus
from modelassay.cli.contrast_schemas import (
    ChangeEntry,
    ContrastEntry,
    ContrastResult,
    Share,
)
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.output import claim_folder
from modelassay.cli.schemas import SCHEMA_VERSION, ProvenanceEntry
from modelassay.cli.units import UnitChoice, activations_of
from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.files import jsonable, write_json
from modelassay.core.progress import Progress, default_progress
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.explain.concepts.labels import concept_labels
from modelassay.observe.contrast import REPLICATION_P, Contrast, contrast
from modelassay.observe.contrast_documents import Responses, responses
from modelassay.observe.exemplars.units import Units
from modelassay.observe.model_diff import KINDS, ModelChange, model_change, raised_responses
from modelassay.report.contrast import (
    change_headline,
    change_report,
    contrast_headline,
    contrast_report,
)
from modelassay.report.report import Report
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

WRITTEN = ("contrast.html", "contrast.json")
_CONTEXT_TOKENS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class ContrastJob:
    """What the command line asked for."""

    subject: str
    site: str
    choice: UnitChoice
    a: Path | None
    b: Path | None
    concept: str | None
    corpus: Path | None
    tuned: str | None
    tokens: int
    fdr: float
    out: Path
    join: Path | None
    seed: int
    device: str
    force: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Texts:
    """What is read, and what belongs to A."""

    contexts: TokenizedCorpus
    labels: torch.Tensor | None
    """1 for tokens of A, 0 for B, where documents hold both."""
    of_a: NDArray[np.bool_] | None
    """By document, where each is of one side."""
    sides: tuple[str, str] | None

    def side(self, found: Responses) -> NDArray[np.bool_]:
        """True for items of A."""
        return found.classes == 1 if self.of_a is None else self.of_a[found.groups]


def run_contrast(job: ContrastJob) -> tuple[str, ContrastResult]:
    """Contrast, write the folder, and give a text and the JSON."""
    progress = default_progress()
    if job.tuned is None and job.a is None and job.b is None and job.concept is None:
        raise ValueRangeError(
            "A contrast must have two sides; got neither --a with --b, nor --concept, nor --tuned. "
            "Name one of these."
        )
    subject = load_subject(job.subject, device=job.device)
    check_join(job.join, subject)
    texts = _texts(job, subject)
    tuned = None if job.tuned is None else load_subject(job.tuned, device=job.device)
    claim_folder(job.out, ours=WRITTEN, force=job.force, resume=False)
    units, base = _responses(job, subject, texts, progress)
    names = units.names
    change: ModelChange | None = None
    found: Contrast | None = None
    if tuned is not None:
        _, other = _responses(job, tuned, texts, progress, units)
        change = model_change(base, other, derived(job.seed, "signs"), fdr=job.fdr)
        if texts.sides is not None:
            found = raised_responses(
                base, other, texts.side(base), derived(job.seed, "contrast"), fdr=job.fdr
            )
    else:
        found = contrast(base, texts.side(base), derived(job.seed, "contrast"), fdr=job.fdr)
    provenance = Provenance.collect(
        seed=job.seed, device=job.device, model=subject.fingerprint(),
        tuned=None if tuned is None else tuned.fingerprint(), site=job.site,
        corpus=texts.contexts.corpus.source, dictionary=job.choice.dictionary,
    )  # fmt: skip
    sides = texts.sides or ("A", "B")
    page = _page(job, subject, tuned, change, found, names, sides, provenance)
    result: ContrastResult = {
        "schema_version": SCHEMA_VERSION,
        "directory": str(job.out),
        "subject": subject.name,
        "site": job.site,
        "contrast": None if found is None else _contrast_entry(found, names, sides),
        "change": None if change is None else _change_entry(change, names, str(job.tuned)),
        "provenance": cast(ProvenanceEntry, provenance.as_json()),
    }
    page.write(job.out / "contrast.html", force=True)
    write_json(job.out / "contrast.json", result)
    lines = [] if change is None else [change_headline(change)]
    lines += [] if found is None else [contrast_headline(found, sides)]
    said = "\n".join(lines)
    join_page(job.join, page, subject, provenance, command="contrast", out=job.out, summary=said)
    return said, result


def _page(
    job: ContrastJob, subject: Subject, tuned: Subject | None, change: ModelChange | None,
    found: Contrast | None, names: tuple[str, ...], sides: tuple[str, str], provenance: Provenance,
) -> Report:  # fmt: skip
    if change is None or tuned is None:
        assert found is not None, "without a second model there are two sides"
        return contrast_report(found, names, sides, provenance, subject=subject.name, site=job.site)
    return change_report(
        change, names, provenance,
        base=subject.name, tuned=tuned.name, site=job.site, raised=found, sides=sides,
    )  # fmt: skip


def _responses(
    job: ContrastJob,
    subject: Subject,
    texts: _Texts,
    progress: Progress,
    units: Units | None = None,
) -> tuple[Units, Responses]:
    site = subject.resolve(job.site)
    source = activations_of(
        subject, texts.contexts, site, tokens=None, seed=job.seed, progress=progress
    )
    # The base's units also read the tuned model: what is compared must be the same.
    units = units or job.choice.units(source, site)
    return units, responses(source, site, units, labels=texts.labels, progress=progress)


def _texts(job: ContrastJob, subject: Subject) -> _Texts:
    if (job.a is None) != (job.b is None) or (job.a is not None and job.concept is not None):
        raise ValueRangeError(
            "Two sides must be --a and --b, or --concept alone; got a mixture. Name both corpora, "
            "or one concept."
        )
    if job.a is not None and job.b is not None:
        return _two_corpora(job, subject, job.a, job.b)
    corpus = read_corpus(job.corpus)
    contexts = _contexts(job, subject, corpus, job.tokens, "contexts")
    if job.concept is None:
        return _Texts(contexts=contexts, labels=None, of_a=None, sides=None)
    known = concept_labels(contexts)
    if known is None:
        raise ValueRangeError(
            "A concept needs a corpus of Python source; got one, most of which does not parse. "
            "Compare two corpora with --a and --b."
        )
    if job.concept not in known.names:
        raise UnknownNameError("Concept", job.concept, known.names)
    number = known.names.index(job.concept)
    labels = known.labels[..., number].long().masked_fill(~known.known[..., number], -1)
    return _Texts(
        contexts=contexts, labels=labels, of_a=None, sides=(job.concept, f"not {job.concept}")
    )


def _two_corpora(job: ContrastJob, subject: Subject, a: Path, b: Path) -> _Texts:
    parts = [
        _contexts(job, subject, read_texts(path), job.tokens // 2, str(side))
        for side, path in enumerate((a, b))
    ]
    names = [a.stem, b.stem] if a.stem != b.stem else [str(a), str(b)]
    documents = tuple(
        replace(document, name=f"{name}/{document.name}")
        for name, part in zip(names, parts, strict=True)
        for document in part.corpus.documents
    )
    n_a = len(parts[0].corpus.documents)
    contexts = TokenizedCorpus(
        corpus=Corpus(source=" and ".join(names), documents=documents),
        tokens=torch.cat([part.tokens for part in parts]),
        mask=torch.cat([part.mask for part in parts]),
        measured=torch.cat([part.measured for part in parts]),
        document=torch.cat([parts[0].document, parts[1].document + n_a]),
        spans=torch.cat([part.spans for part in parts]),
    )
    of_a = np.arange(len(documents)) < n_a
    return _Texts(contexts=contexts, labels=None, of_a=of_a, sides=(names[0], names[1]))


def _contexts(
    job: ContrastJob, subject: Subject, corpus: Corpus | TokenizedCorpus, tokens: int, purpose: str
) -> TokenizedCorpus:
    if isinstance(corpus, Corpus):
        if subject.tokenizer is None:
            raise ValueRangeError(
                f"A corpus of texts needs a tokenizer; got the subject {subject.name!r} without "
                "one. Give a .jsonl of token ids."
            )
        length = min(_CONTEXT_TOKENS, subject.context_tokens)
        corpus = tokenize(corpus, subject.tokenizer, context_tokens=length)
    return corpus.take(tokens, derived(job.seed, purpose))


def _contrast_entry(
    found: Contrast, names: tuple[str, ...], sides: tuple[str, str]
) -> ContrastEntry:
    again = found.replication
    return {
        "a": sides[0],
        "b": sides[1],
        "paired": found.paired,
        "discovery_items": list(found.n_discovery),
        "replication_items": list(found.n_replication),
        "fdr": found.fdr,
        "units": len(names),
        "discoveries": [
            {
                "unit": names[u],
                "auroc": float(again.auroc[u]),
                "low": float(again.low[u]),
                "high": float(again.high[u]),
                "difference": float(again.difference[u]),
                "rate_difference": float(again.rate[u]),
                "q_value": float(found.q_value[u]),
                "replication_p": float(found.replication_p[u]),
                "replicated": bool(found.replicated[u]),
            }
            for u in found.discovered.tolist()
        ],
        "replicated": _share(found.replication_share, REPLICATION_P),
        "same_sign": _share(found.sign_share, 0.5),
    }


def _change_entry(change: ModelChange, names: tuple[str, ...], tuned: str) -> ChangeEntry:
    kinds = change.kinds
    return {
        "tuned": tuned,
        "documents": change.n_documents,
        "kinds": {kind: kinds.count(kind) for kind in KINDS},
        "changed": [
            {
                "unit": names[u],
                "kind": kind,
                "base_rate": float(change.base_rates[u]),
                "tuned_rate": float(change.tuned_rates[u]),
                "change": float(change.change[u]),
                "low": float(change.low[u]),
                "high": float(change.high[u]),
                "effect": float(change.effect[u]),
                "q_value": float(change.q_value[u]),
            }
            for kind in KINDS[:4]
            for u in change.of_kind(kind).tolist()
        ],
    }


def _share(share: tuple[float, float, float], null: float) -> Share:
    value, low, high = map(jsonable, share)
    return {"value": value, "low": low, "high": high, "null": null}
