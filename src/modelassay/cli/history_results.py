"""The work of `modelassay history`."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.audit.run import read_corpus
from modelassay.cli.history_schemas import HistoryConcept, HistoryResult
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.output import claim_folder
from modelassay.cli.probe_schemas import ProbeMeasured
from modelassay.cli.probing import read_prompts
from modelassay.cli.schemas import SCHEMA_VERSION, ProvenanceEntry
from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.files import jsonable, write_atomically, write_json
from modelassay.core.progress import default_progress
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.explain.code_state import DESCRIPTIONS, code_state
from modelassay.observe.probes.checkpoints import Checkpoint, probe_history
from modelassay.observe.probes.items import ProbeItems
from modelassay.observe.probes.scores import Measured
from modelassay.observe.probes.sweep_items import TokenConcept, too_few
from modelassay.observe.probes.training_history import ConceptSummary, TrainingHistory
from modelassay.report.history_picture import history_picture
from modelassay.report.probe_history import as_text, history_report
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

WRITTEN = ("history.html", "history.svg", "history.json")
_CONTEXT_TOKENS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryJob:
    """What the command line asked for."""

    checkpoints: tuple[Path, ...]
    sites: tuple[str, ...]
    concepts: tuple[str, ...]
    prompts: Path | None
    corpus: Path | None
    items: int
    tokens: int
    out: Path
    join: Path | None
    seed: int
    device: str
    force: bool


def run_history(job: HistoryJob) -> tuple[str, HistoryResult]:
    """Probe the checkpoints, write the folder, and give the table and the JSON."""
    folders = checkpoint_folders(job.checkpoints)
    for name in job.concepts:
        if name not in DESCRIPTIONS:
            raise UnknownNameError("Concept", name, DESCRIPTIONS)
    last = load_subject(folders[max(folders)], device=job.device)
    for site in job.sites:
        last.resolve(site)
    check_join(job.join, last)
    contexts, asked = _concepts(last, job)
    claim_folder(job.out, ours=WRITTEN, force=job.force, resume=False)
    reasons = {concept.name: too_few(contexts, concept) for concept in asked}
    found = probe_history(
        [
            Checkpoint(step=step, name=name_of(folder), load=_loader(folder, job.device))
            for step, folder in folders.items()
        ],
        contexts,
        [concept for concept in asked if not reasons[concept.name]],
        job.sites,
        n_items=job.items, seed=job.seed, progress=default_progress(),
    )  # fmt: skip
    provenance = Provenance.collect(
        seed=job.seed, device=job.device, model=last.fingerprint(), corpus=contexts.corpus.source,
        contexts=contexts.fingerprint(), items=job.items,
    )  # fmt: skip
    missing = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    result = _as_json(found, [str(f) for f in folders.values()], missing, job.out, provenance)
    page = history_report(found, provenance)
    page.write(job.out / "history.html", force=True)
    join_page(job.join, page, last, provenance, command="history", out=job.out)
    write_atomically(job.out / "history.svg", history_picture(found))
    write_json(job.out / "history.json", result)
    return "\n".join([as_text(found), *missing]), result


def checkpoint_folders(given: Sequence[Path]) -> dict[int, Path]:
    """Steps, ascending, and the folders of their models.

    A folder without a model of its own stands for the model folders in it. The step is the number
    at the end of a folder's name: step-000512, checkpoint-512.

    Raises:
        UnknownNameError: if there is no such folder, or no model in it.
        ValueRangeError: if a name does not end in a number, or two end in the same.
    """
    folders: list[Path] = []
    for path in given:
        inside = sorted(p.parent for p in path.glob("*/config.json"))
        if (path / "config.json").is_file():
            folders.append(path)
        elif inside:
            folders += inside
        else:
            near = [str(p.parent) for p in path.parent.glob("*/config.json")]
            raise UnknownNameError("Folder of checkpoints", str(path), near)
    steps: dict[int, Path] = {}
    for folder in folders:
        match = re.search(r"(\d+)$", folder.resolve().name)
        if match is None or int(match[1]) in steps:
            raise ValueRangeError(
                "Checkpoint folders must end in their steps, each another; got "
                f"{str(folder)!r}. Rename it, as in step-512."
            )
        steps[int(match[1])] = folder
    return dict(sorted(steps.items()))


def name_of(folder: Path) -> str:
    """A checkpoint's name with that of its run, where the folder has one."""
    path = folder.resolve()
    run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    return f"{run.name}/{path.name}"


def _loader(folder: Path, device: str) -> Callable[[], Subject]:
    return lambda: load_subject(folder, device=device)


def _concepts(
    subject: Subject, job: HistoryJob
) -> tuple[TokenizedCorpus, tuple[TokenConcept, ...]]:
    if job.prompts is not None:
        items, _ = read_prompts(job.prompts, subject)
        return concepts_of_prompts(items, job.prompts.stem)
    contexts = _contexts(subject, job)
    found = code_state(contexts)
    return contexts, tuple(c for c in found if not job.concepts or c.name in job.concepts)


def _contexts(subject: Subject, job: HistoryJob) -> TokenizedCorpus:
    """Contexts of the corpus; by default of files that the bundled model was not trained on."""
    texts = (
        stdlib_corpus(with_tests=True).select("heldout")
        if job.corpus is None
        else read_corpus(job.corpus)
    )
    if isinstance(texts, TokenizedCorpus):
        raise ValueRangeError(
            f"A concept needs texts; got token ids from {str(job.corpus)!r}. Give the texts."
        )
    if subject.tokenizer is None:
        raise ValueRangeError(
            f"A corpus of texts needs a tokenizer; got {subject.name!r} without one. Put it into "
            "the folder of the last checkpoint."
        )
    length = min(_CONTEXT_TOKENS, subject.context_tokens)
    contexts = tokenize(texts, subject.tokenizer, context_tokens=length)
    return contexts.take(job.tokens, derived(job.seed, "contexts"))


def concepts_of_prompts(
    items: ProbeItems, name: str
) -> tuple[TokenizedCorpus, tuple[TokenConcept, ...]]:
    """Labelled prompts as contexts: each class against the others, at the end of each prompt.

    Two classes are one concept. Groups take the place of documents.
    """
    documents = tuple(Document(name=g, text=g or " ", split="fit") for g in items.group_names)
    contexts = TokenizedCorpus(
        corpus=Corpus(source=name, documents=documents),
        tokens=items.tokens, mask=items.mask, measured=items.mask, document=items.groups,
        spans=torch.full((*items.tokens.shape, 2), -1),
    )  # fmt: skip
    chosen = [1] if len(items.classes) == 2 else range(len(items.classes))
    concepts: list[TokenConcept] = []
    for number in chosen:
        values = torch.full(items.tokens.shape, torch.nan)
        values[items.places[:, 0], items.places[:, 1]] = (items.labels == number).float()
        others = " or ".join(c for n, c in enumerate(items.classes) if n != number)
        concepts.append(
            TokenConcept(
                name=items.classes[number],
                description=f"The prompt is {items.classes[number]!r}, not {others}.",
                values=values,
            )
        )
    return contexts, tuple(concepts)


def _as_json(
    history: TrainingHistory,
    checkpoints: list[str],
    missing: list[str],
    out: Path,
    provenance: Provenance,
) -> HistoryResult:
    leads = history.bounds("lead")
    return {
        "schema_version": SCHEMA_VERSION,
        "directory": str(out),
        "subject": history.subject,
        "checkpoints": checkpoints,
        "steps": list(history.steps),
        "sites": list(history.sites),
        "null": history.null,
        "concepts": [
            _concept(history, number, summary, leads)
            for number, summary in enumerate(history.summaries())
        ],
        "missing": missing,
        "provenance": cast(ProvenanceEntry, provenance.as_json()),
    }


def _concept(
    history: TrainingHistory, number: int, summary: ConceptSummary, leads: Tensor
) -> HistoryConcept:
    return {
        "name": summary.name,
        "description": history.descriptions[number],
        "graded": history.graded[number],
        "train_items": history.n_train[number],
        "test_items": history.n_test[number],
        "test_groups": history.n_test_groups[number],
        "finding": summary.finding,
        "since": summary.since,
        "site": summary.site,
        "score": _measured(summary.score),
        "lead": _measured(summary.lead),
        "over_token": _measured(summary.over_token),
        "over_bag": _measured(summary.over_bag),
        "over_null": _measured(summary.over_null),
        "selectivity": _measured(summary.selectivity),
        "scores": jsonable(history.scores[number, :, :, 0]),
        "leads": jsonable(leads[0, number]),
        "leads_low": jsonable(leads[1, number]),
        "leads_high": jsonable(leads[2, number]),
    }


def _measured(measured: Measured) -> ProbeMeasured:
    return jsonable({"value": measured.value, "low": measured.low, "high": measured.high})
