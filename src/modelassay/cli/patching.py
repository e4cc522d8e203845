"""The work of `modelassay patch`."""

from collections.abc import Sequence
from pathlib import Path

from modelassay.cli.intervention_output import quantity, write_result
from modelassay.cli.intervention_schemas import PatchCell, PatchEstimate, PatchResult
from modelassay.cli.output import refuse_existing
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.progress import default_progress
from modelassay.core.provenance import Provenance
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.formats.registry import read_dictionary
from modelassay.observe.attribution_patching import (
    Completeness,
    agreement,
    attribute,
    integrated_gradients,
)
from modelassay.observe.patching import Direction, Effects
from modelassay.observe.patching import patch as patch_parts
from modelassay.observe.patching_columns import Column
from modelassay.observe.patching_columns import everywhere as at_all_positions
from modelassay.observe.patching_pairs import MEASURES, Measure, PromptPairs, tokenize_pairs
from modelassay.observe.patching_parts import (
    Latents,
    Part,
    Residue,
    Whole,
    heads_of,
    sites_of,
)
from modelassay.observe.patching_texts import read_pairs
from modelassay.report.intervention_pictures import effect_picture
from modelassay.report.patching import effect_map, patching_report
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_SHOWN = 8


def patched(
    source: str,
    file: Path,
    *,
    parts: Sequence[str],
    dictionary: str | None,
    latents: int,
    noising: bool,
    everywhere: bool,
    measure: str,
    estimate: str,
    limit: int,
    out: Path,
    force: bool,
    seed: int,
    device: str,
) -> PatchResult:
    """Patch, estimate, draw, and say what carries the most."""
    refuse_existing(out, force=force)
    subject = load_subject(source, device=device)
    pairs = aligned(subject, file, limit)
    direction: Direction = "noising" if noising else "denoising"
    columns = [_all(pairs)] if everywhere else None
    if dictionary is None:
        chosen = parse_parts(subject, parts)
    else:
        read = read_dictionary(dictionary)
        chosen = strongest_latents(subject, pairs, read, latents, MEASURES[measure], direction)
    asked = MEASURES[measure]
    progress = default_progress()
    measured = patch_parts(
        subject, pairs, chosen, columns=columns, measure=asked, direction=direction,
        progress=progress,
    )  # fmt: skip
    estimates: list[Effects] = []
    checks: tuple[Completeness, ...] = ()
    if estimate in ("gradient", "both"):
        estimates.append(
            attribute(subject, pairs, chosen, columns=columns, measure=asked, direction=direction)
        )
    if estimate in ("integrated", "both"):
        effects, checks = integrated_gradients(
            subject, pairs, chosen, columns=columns, measure=asked, direction=direction,
            progress=progress,
        )  # fmt: skip
        estimates.append(effects)
    provenance = Provenance.collect(seed=seed, device=device, pairs=str(file.name))
    report = patching_report(
        subject.name,
        measured,
        provenance,
        measure=measure.replace("_", " "),
        estimates=estimates,
        checks=checks,
        left_out=pairs.left_out,
        seed=seed,
    )
    write_result(out, report, lambda: effect_picture(effect_map(measured, seed)), force=force)
    return _result(subject, measured, estimates, checks, pairs, out, seed)


def aligned(subject: Subject, file: Path, limit: int) -> PromptPairs:
    """The first pairs of a file that this model's tokenizer cuts alike.

    Raises:
        UnsupportedModelError: the model has no tokenizer.
    """
    if subject.tokenizer is None:
        raise UnsupportedModelError(
            f"Pairs in words need a tokenizer; got {subject.name!r}, which has none. "
            "Make PromptPairs of token ids in Python."
        )
    return tokenize_pairs(subject.tokenizer, read_pairs(file), unfit="leave out")[slice(limit)]


def parse_parts(subject: Subject, words: Sequence[str]) -> list[Part]:
    """Parts as they are typed: "heads", a role for every layer, or a site."""
    found: list[Part] = []
    for word in (word.strip() for word in words):
        if word == "heads":
            found += heads_of(subject)
        elif "." in word or ":" in word:
            found.append(Whole(subject.resolve(word)))
        else:
            found += sites_of(subject, word)
    return found


def strongest_latents(
    subject: Subject,
    pairs: PromptPairs,
    dictionary: Decomposition,
    count: int,
    measure: Measure,
    direction: Direction,
) -> list[Part]:
    """The dictionary's error, and the latents with the largest estimated mean effects.

    Raises:
        ValueRangeError: the dictionary does not say which site it belongs to.
    """
    site = dictionary.reads
    if site is None:
        raise ValueRangeError(
            f"A dictionary must say which site it reads; got {dictionary.name!r}, which does not. "
            "Convert it with its site."
        )
    every = [
        Latents(site, dictionary, (latent,)) for latent in _active(subject, site, dictionary, pairs)
    ]
    if not every:
        return [Residue(site, dictionary)]
    estimated = attribute(
        subject, pairs, every, columns=[_all(pairs)], measure=measure, direction=direction
    )
    order = estimated.values[:, 0].mean(1).abs().argsort(descending=True)[:count]
    return [Residue(site, dictionary), *(every[number] for number in order.tolist())]


def _active(
    subject: Subject, site: Site, dictionary: Decomposition, pairs: PromptPairs
) -> list[int]:
    """Latents that are active on some of the prompts."""
    counts = sum(
        dictionary.encode(
            subject.run(tokens, read=[site], until=site).activations[site][pairs.real].flatten(1)
        ).firing_counts()
        for tokens in (pairs.clean, pairs.corrupt)
    )
    assert not isinstance(counts, int)
    return counts.nonzero()[:, 0].tolist()


def _all(pairs: PromptPairs) -> Column:
    return at_all_positions(pairs)


def _result(
    subject: Subject,
    measured: Effects,
    estimates: Sequence[Effects],
    checks: Sequence[Completeness],
    pairs: PromptPairs,
    out: Path,
    seed: int,
) -> PatchResult:
    shares, ends = measured.shares(), measured.intervals(seed)
    cells: list[PatchCell] = [
        {
            "part": part,
            "column": column,
            "share": float(shares[row, place]),
            "low": quantity(float(ends[row, place, 0])),
            "high": quantity(float(ends[row, place, 1])),
        }
        for row, part in enumerate(measured.parts)
        for place, column in enumerate(measured.columns)
    ]
    total = measured.total(seed)
    found: list[PatchEstimate] = []
    for each in estimates:
        compared = agreement(each, measured, seed)
        found.append(
            {
                "method": each.method,
                "pearson": quantity(compared.pearson.value),
                "spearman": quantity(compared.spearman.value),
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "subject": subject.name,
        "direction": measured.direction,
        "pairs": len(pairs),
        "groups": len(measured.groups.unique()),
        "left_out": pairs.left_out,
        "total": total.value,
        "total_low": quantity(total.low),
        "total_high": quantity(total.high),
        "cells": cells,
        "estimates": found,
        "complete": all(bool(check.complete.all()) for check in checks) if checks else None,
        "file": str(out),
    }


def patched_text(result: PatchResult) -> str:
    """What carries the most, for a terminal."""
    order = sorted(result["cells"], key=lambda cell: -abs(cell["share"]))[:_SHOWN]
    low, high = (
        "–" if end is None else f"{end:.3g}" for end in (result["total_low"], result["total_high"])
    )
    lines = [
        f"{result['pairs']} pairs in {result['groups']} groups ({result['left_out']} left out) · "
        f"difference of the runs {result['total']:.3g} [{low}, {high}]",
        *(f"  {cell['part']:<18} {cell['column']:<14} {cell['share']:6.3f}" for cell in order),
        *(
            f"{each['method']}: Pearson {each['pearson']:.3f}, Spearman {each['spearman']:.3f}"
            for each in result["estimates"]
            if each["pearson"] is not None and each["spearman"] is not None
        ),
        f"The picture is {result['file']}",
    ]
    return "\n".join(lines)
