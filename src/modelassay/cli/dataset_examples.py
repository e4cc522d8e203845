"""The work of `modelassay examples`."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from modelassay.activations.harvest import Harvest, open_harvest
from modelassay.activations.streaming import StreamedHarvest
from modelassay.audit.run import read_corpus
from modelassay.cli.contrast_schemas import ExamplesResult, PairEntry, UnitEntry
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.output import claim_folder
from modelassay.cli.schemas import SCHEMA_VERSION, ProvenanceEntry
from modelassay.cli.units import UnitChoice, activations_of, vocabulary_of
from modelassay.core.files import write_json
from modelassay.core.progress import default_progress
from modelassay.core.provenance import Provenance
from modelassay.observe.exemplars.search import Found, Wanted, search_examples
from modelassay.report.examples import examples_report
from modelassay.subjects.load import load_subject

WRITTEN = ("examples.html", "examples.json", "statistics.safetensors")
_PAIRS = 20
_SHOWN = 12  # units on the terminal


@dataclass(frozen=True, kw_only=True, slots=True)
class ExamplesJob:
    """What the command line asked for."""

    subject: str
    site: str
    choice: UnitChoice
    corpus: Path | None
    tokens: int
    harvest: Path | None
    top: int
    pairs: bool
    out: Path
    join: Path | None
    seed: int
    device: str
    force: bool


def run_examples(job: ExamplesJob) -> tuple[str, ExamplesResult]:
    """Search, write the folder, and give a text and the JSON."""
    progress = default_progress()
    subject = load_subject(job.subject, device=job.device)
    check_join(job.join, subject)
    site = subject.resolve(job.site)
    claim_folder(job.out, ours=WRITTEN, force=job.force, resume=False)
    source: Harvest | StreamedHarvest
    if job.harvest is not None:
        source = open_harvest(job.harvest, subject, progress=progress)
    else:
        source = activations_of(
            subject, read_corpus(job.corpus), site, tokens=job.tokens, seed=job.seed,
            progress=progress,
        )  # fmt: skip
    units = job.choice.units(source, source.find(site))
    found = search_examples(
        source, site, units, wanted=Wanted(n_top=job.top), seed=job.seed, pairs=job.pairs,
        progress=progress,
    )  # fmt: skip
    provenance = Provenance.collect(
        seed=job.seed, device=job.device, model=subject.fingerprint(), site=str(site),
        corpus=source.origin, tokens=source.n_tokens, dictionary=job.choice.dictionary,
    )  # fmt: skip
    vocabulary = vocabulary_of(subject)
    result: ExamplesResult = {
        "schema_version": SCHEMA_VERSION,
        "directory": str(job.out),
        "subject": subject.name,
        "site": str(site),
        "tokens": source.n_tokens,
        "quantile_error": found.statistics.sketch.relative_error,
        "units": _entries(found, units.names, vocabulary),
        "pairs": _pairs(found, units.names) if job.pairs else None,
        "provenance": cast(ProvenanceEntry, provenance.as_json()),
    }
    page = examples_report(
        found, units.names, vocabulary, provenance,
        subject=subject.name, site=str(site), what=job.choice.what(),
    )  # fmt: skip
    page.write(job.out / "examples.html", force=True)
    write_json(job.out / "examples.json", result)
    found.statistics.save(job.out / "statistics.safetensors")
    join_page(job.join, page, subject, provenance, command="examples", out=job.out)
    return _text(result), result


def _entries(found: Found, names: tuple[str, ...], vocabulary: tuple[str, ...]) -> list[UnitEntry]:
    statistics, examples = found.statistics, found.examples
    medians, rates = statistics.sketch.quantile(0.5).tolist(), statistics.rates.tolist()
    places = (examples.starts + examples.peaks).tolist()
    tokens: list[list[str]] = [[] for _ in names]
    counts = [0] * len(names)
    columns = (examples.latents.tolist(), examples.groups.tolist(), examples.contexts.tolist())
    for unit, group, context, place in zip(*columns, places, strict=True):
        counts[unit] += 1
        if group == 0:
            tokens[unit].append(vocabulary[int(examples.tokens[context, place])])
    return [
        {
            "name": name,
            "rate": rates[unit],
            "largest": float(statistics.highest[unit]) if rates[unit] else None,
            "median": medians[unit] if rates[unit] else None,
            "strongest_tokens": tokens[unit],
            "examples": counts[unit],
        }
        for unit, name in enumerate(names)
    ]


def _pairs(found: Found, names: tuple[str, ...]) -> list[PairEntry]:
    pairs, phi = found.statistics.correlated_pairs(_PAIRS)
    return [
        {"units": [names[first], names[second]], "phi": value}
        for (first, second), value in zip(pairs.tolist(), phi.tolist(), strict=True)
    ]


def _text(result: ExamplesResult) -> str:
    lines = [f"{len(result['units']):,} units over {result['tokens']:,} tokens."]
    busiest = sorted(result["units"], key=lambda entry: -entry["rate"])
    for entry in busiest[:_SHOWN]:
        shown = " ".join(repr(token) for token in dict.fromkeys(entry["strongest_tokens"][:5]))
        lines.append(f"  {entry['name']:<18} active on {entry['rate']:7.2%}  {shown}")
    if len(busiest) > _SHOWN:
        lines.append(f"  … and {len(busiest) - _SHOWN:,} more, on the page")
    return "\n".join(lines)
