"""What `modelassay patch` found, as JSON and for a terminal."""

from collections.abc import Sequence
from pathlib import Path

from modelassay.cli.intervention_output import quantity
from modelassay.cli.intervention_schemas import (
    Measure95,
    PatchCell,
    PatchEstimate,
    PatchMediation,
    PatchResult,
)
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.observe.attribution_patching import Completeness, agreement
from modelassay.observe.mediation import Mediation
from modelassay.observe.patching import Effects
from modelassay.observe.patching_pairs import PromptPairs
from modelassay.observe.probes.scores import Measured
from modelassay.subjects.subject import Subject

_SHOWN = 8


def result_of(
    subject: Subject,
    effects: Effects,
    pairs: PromptPairs,
    out: Path,
    seed: int,
    *,
    estimates: Sequence[Effects],
    checks: Sequence[Completeness],
    mediations: Sequence[Mediation],
    paths: Effects | None,
) -> PatchResult:
    """Everything that was measured."""
    total = effects.total(seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "subject": subject.name,
        "direction": effects.direction,
        "pairs": len(pairs),
        "groups": len(effects.groups.unique()),
        "left_out": pairs.left_out,
        "total": total.value,
        "total_low": quantity(total.low),
        "total_high": quantity(total.high),
        "cells": _cells(effects, seed),
        "estimates": [_estimate(each, effects, seed) for each in estimates],
        "complete": all(bool(check.complete.all()) for check in checks) if checks else None,
        "mediation": [_mediation(each, seed) for each in mediations],
        "paths": None if paths is None else _cells(paths, seed),
        "file": str(out),
    }


def _cells(effects: Effects, seed: int) -> list[PatchCell]:
    shares, ends = effects.shares(), effects.intervals(seed)
    return [
        {
            "part": part,
            "column": column,
            "share": float(shares[row, place]),
            "low": quantity(float(ends[row, place, 0])),
            "high": quantity(float(ends[row, place, 1])),
        }
        for row, part in enumerate(effects.parts)
        for place, column in enumerate(effects.columns)
    ]


def _estimate(each: Effects, effects: Effects, seed: int) -> PatchEstimate:
    compared = agreement(each, effects, seed)
    return {
        "method": each.method,
        "pearson": quantity(compared.pearson.value),
        "spearman": quantity(compared.spearman.value),
    }


def _mediation(each: Mediation, seed: int) -> PatchMediation:
    means = {name: _with_ends(value) for name, value in each.means(seed).items()}
    return {
        "mediators": list(each.mediators),
        "total": means["total"],
        "indirect": means["indirect"],
        "direct": means["direct"],
        "mediated": means["mediated"],
    }


def _with_ends(value: Measured) -> Measure95:
    return {
        "value": quantity(value.value),
        "low": quantity(value.low),
        "high": quantity(value.high),
    }


def patched_text(result: PatchResult) -> str:
    """What carries the most, for a terminal."""
    low, high = (
        "–" if end is None else f"{end:.3g}" for end in (result["total_low"], result["total_high"])
    )
    lines = [
        f"{result['pairs']} pairs in {result['groups']} groups ({result['left_out']} left out) · "
        f"difference of the runs {result['total']:.3g} [{low}, {high}]",
        *_largest(result["cells"]),
        *(
            f"{each['method']}: Pearson {each['pearson']:.3f}, Spearman {each['spearman']:.3f}"
            for each in result["estimates"]
            if each["pearson"] is not None and each["spearman"] is not None
        ),
        *_mediation_text(result["mediation"]),
    ]
    if result["paths"] is not None:
        lines += ["By direct paths alone:", *_largest(result["paths"])]
    return "\n".join([*lines, f"The picture is {result['file']}"])


def _largest(cells: Sequence[PatchCell]) -> list[str]:
    order = sorted(cells, key=lambda cell: -abs(cell["share"]))[:_SHOWN]
    return [f"  {cell['part']:<18} {cell['column']:<14} {cell['share']:6.3f}" for cell in order]


def _mediation_text(mediations: Sequence[PatchMediation]) -> list[str]:
    found = [
        (", ".join(each["mediators"]), share)
        for each in mediations
        if (share := each["mediated"]["value"]) is not None
    ]
    order = sorted(found, key=lambda pair: -abs(pair[1]))[:_SHOWN]
    lines = [f"  {name:<18} {share:6.3f}" for name, share in order]
    return ["Of the corrupt prompt's effect passes through:", *lines] if lines else []
