"""The work of `modelassay probe`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.audit.run import read_corpus
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.output import claim_folder
from modelassay.cli.probe_schemas import (
    ProbeControl,
    ProbeEffect,
    ProbeMeasured,
    ProbeResult,
    ProbeSite,
)
from modelassay.cli.schemas import SCHEMA_VERSION, ProvenanceEntry
from modelassay.core.errors import CorruptFileError, UnknownNameError, ValueRangeError
from modelassay.core.files import write_json, write_tensors
from modelassay.core.progress import default_progress
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.explain.concepts import concept_labels
from modelassay.observe.probes.behaviour import Choices
from modelassay.observe.probes.items import ProbeItems, items_from_contexts, items_from_prompts
from modelassay.observe.probes.logistic import Logistic
from modelassay.observe.probes.mass_mean import MassMean
from modelassay.observe.probes.mlp import Mlp
from modelassay.observe.probes.probe import ProbeMethod
from modelassay.observe.probes.report import ProbeReport, table
from modelassay.observe.probes.scores import Measured
from modelassay.observe.probes.sites import probe_sites
from modelassay.observe.probes.sparse import Sparse
from modelassay.observe.probes.study import Study
from modelassay.report.probes import probes_report
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

WRITTEN = ("probes.html", "probes.json", "directions.safetensors")
_TOKENS_PER_ITEM = 40  # tokens of the corpus that are labelled, for each item wanted (ours)
_CONTEXT_TOKENS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeJob:
    """What the command line asked for."""

    subject: str
    sites: tuple[str, ...]
    prompts: Path | None
    concept: str
    corpus: Path | None
    method: str
    k: int
    pool: str
    per_class: int
    test_share: float
    description_length: bool
    out: Path
    join: Path | None
    seed: int
    device: str
    force: bool


def run_probes(job: ProbeJob) -> tuple[str, ProbeResult]:
    """Probe, write the folder, and give the table and the JSON."""
    subject = load_subject(job.subject, device=job.device)
    check_join(job.join, subject)
    sites = [subject.resolve(site) for site in job.sites]
    choices: Choices | None = None
    if job.prompts is None:
        items, concept = _from_corpus(subject, job), job.concept
    else:
        items, choices = read_prompts(job.prompts, subject)
        concept = job.prompts.stem
    claim_folder(job.out, ours=WRITTEN, force=job.force, resume=False)
    study = Study(
        description_length=job.description_length, test_share=job.test_share, seed=job.seed
    )
    reports = probe_sites(
        subject, items, sites, _method(job),
        concept=concept, choices=choices, pool=job.pool, study=study, progress=default_progress(),
    )  # fmt: skip
    provenance = Provenance.collect(
        seed=job.seed, device=job.device, model=subject.fingerprint(), concept=concept,
        method=reports[0].method, pool=job.pool, items=len(items),
    )  # fmt: skip
    result = _as_json(reports, job.out, provenance)
    page = probes_report(reports, provenance)
    page.write(job.out / "probes.html", force=True)
    write_json(job.out / "probes.json", result)
    found = {r.site: r.direction.float() for r in reports if r.direction is not None}
    write_tensors(job.out / "directions.safetensors", found)
    join_page(job.join, page, subject, provenance, command="probe", out=job.out)
    return table(reports), result


def read_prompts(path: Path, subject: Subject) -> tuple[ProbeItems, Choices | None]:
    """Labelled prompts, one JSON object a line.

    `text` and `label` are needed; `group` is by default the text, `type` the last token.
    `continuations` give, for each of the two classes in order, what follows if the model takes the
    item for that class; either every line has them or none. Classes are in alphabetical order.

    Raises:
        CorruptFileError: if a line is no such object.
        ValueRangeError: if some lines only have continuations or types, or the model no tokenizer.
    """
    if subject.tokenizer is None:
        raise ValueRangeError(
            f"Prompts of text need a tokenizer; got the subject {subject.name!r} without one. "
            "Choose a model with a tokenizer."
        )
    rows = [
        _parsed(line, number, path)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if line.strip()
    ]
    classes = tuple(sorted({str(row["label"]) for row in rows}))
    prompts = [_ids(subject, row["text"]) for row in rows]
    typed, continued = (_all_or_none(rows, key) for key in ("type", "continuations"))
    items = items_from_prompts(
        prompts,
        [classes.index(str(row["label"])) for row in rows],
        groups=[str(row.get("group", row["text"])) for row in rows],
        classes=classes,
        types=[str(row["type"]) for row in rows] if typed else None,
    )
    if not continued:
        return items, None
    if len(classes) != 2 or any(len(row["continuations"]) != 2 for row in rows):
        raise ValueRangeError(
            f"Continuations must be two, for two classes; got {len(classes)} classes "
            f"({', '.join(classes)}). Leave them out, or label one class against the others."
        )
    pairs = [
        (_ids(subject, row["continuations"][0]), _ids(subject, row["continuations"][1]))
        for row in rows
    ]
    return items, Choices.of(prompts, pairs)


def _parsed(line: str, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        row = None
    if not isinstance(row, dict) or not {"text", "label"} <= set(row):
        raise CorruptFileError(
            f"Each line of {str(path)!r} must be a JSON object with text and label; got line "
            f'{number}: {line[:60]!r}. Write {{"text": …, "label": …}}.'
        )
    return row


def _all_or_none(rows: Sequence[dict[str, Any]], key: str) -> bool:
    count = sum(key in row for row in rows)
    if count not in (0, len(rows)):
        raise ValueRangeError(
            f"Either every prompt or none must have {key!r}; got it in {count} of {len(rows)}. "
            "Add it to the others, or take it out."
        )
    return count > 0


def _ids(subject: Subject, text: str) -> list[int]:
    tokenizer: Any = subject.tokenizer
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _from_corpus(subject: Subject, job: ProbeJob) -> ProbeItems:
    """Random tokens at which a concept of Python source holds, and as many at which it does not."""
    texts = read_corpus(job.corpus)
    if subject.tokenizer is None:
        raise ValueRangeError(
            f"A corpus of texts needs a tokenizer; got the subject {subject.name!r} without one. "
            "Choose a model with a tokenizer."
        )
    if isinstance(texts, TokenizedCorpus):
        raise ValueRangeError(
            f"A concept needs texts; got token ids from {str(job.corpus)!r}. Give the texts."
        )
    length = min(_CONTEXT_TOKENS, subject.context_tokens)
    contexts = tokenize(texts, subject.tokenizer, context_tokens=length)
    contexts = contexts.take(
        max(20_000, 2 * job.per_class * _TOKENS_PER_ITEM), derived(job.seed, "contexts")
    )
    found = concept_labels(contexts)
    if found is None:
        raise ValueRangeError(
            f"A concept needs a corpus of Python source; got {texts.source!r}, most of which does "
            "not parse. Label prompts of your own with --prompts."
        )
    if job.concept not in found.names:
        raise UnknownNameError("Concept", job.concept, found.names)
    number = found.names.index(job.concept)
    labels = found.labels[..., number].long().masked_fill(~found.known[..., number], -1)
    return items_from_contexts(
        contexts, labels, derived(job.seed, "items"), classes=("no", "yes"),
        per_class=job.per_class,
    )  # fmt: skip


def _method(job: ProbeJob) -> ProbeMethod:
    methods: dict[str, ProbeMethod] = {
        "logistic": Logistic(),
        "mass_mean": MassMean(),
        "mass_mean_tilted": MassMean(tilted=True),
        "sparse": Sparse(k=job.k),
        "mlp": Mlp(),
    }
    return methods[job.method]


def _as_json(reports: Sequence[ProbeReport], out: Path, provenance: Provenance) -> ProbeResult:
    first = reports[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "directory": str(out),
        "subject": first.subject,
        "concept": first.concept,
        "method": first.method,
        "classes": list(first.classes),
        "balance": first.balance.tolist(),
        "train_items": first.n_train,
        "test_items": first.n_test,
        "train_groups": first.n_train_groups,
        "test_groups": first.n_test_groups,
        "sites": [_site(report) for report in reports],
        "missing": list(dict.fromkeys(line for r in reports for line in r.missing)),
        "provenance": cast(ProvenanceEntry, provenance.as_json()),
    }


def _site(report: ProbeReport) -> ProbeSite:
    causal = report.causal
    return {
        "site": report.site,
        "encoded": report.encoded,
        "used": report.used,
        "accuracy": _measured(report.scores.accuracy),
        "auroc": _measured(report.scores.auroc),
        "f1": _measured(report.scores.f1),
        "average_precision": _measured(report.scores.average_precision),
        "ece": _measured(report.scores.ece),
        "controls": [_control(report, number) for number in range(len(report.baselines))],
        "selectivity": None if report.selectivity is None else _measured(report.selectivity),
        "compression": {name: code.compression for name, code in report.codes.items()},
        "auroc_after_erasure": None if report.erased is None else _measured(report.erased.auroc),
        "separation": None if causal is None else _measured(causal.separation),
        "effects": []
        if causal is None
        else [_effect(report, n) for n in range(len(causal.effects))],
    }


def _control(report: ProbeReport, number: int) -> ProbeControl:
    control = report.baselines[number]
    return {
        "name": control.name,
        "meaning": control.meaning,
        "accuracy": _measured(control.scores.accuracy),
        "lead": _measured(control.lead),
    }


def _effect(report: ProbeReport, number: int) -> ProbeEffect:
    assert report.causal is not None
    effect = report.causal.effects[number]
    return {
        "name": effect.name,
        "share": _measured(effect.value),
        "null_largest": float(effect.null.max()),
        "p_value": effect.p_value,
    }


def _measured(measured: Measured) -> ProbeMeasured:
    def known(value: float) -> float | None:
        return None if torch.tensor(value).isnan() else value

    return {
        "value": known(measured.value),
        "low": known(measured.low),
        "high": known(measured.high),
    }
