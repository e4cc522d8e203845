"""What the commands of `modelassay testbeds` find, and how they say it."""

import math
import textwrap
from pathlib import Path

from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.cli.testbed_schemas import (
    ArmEntry,
    TestbedCheckResult,
    TestbedListResult,
    TestbedShowResult,
)
from modelassay.core.files import jsonable
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.catalogue import kinds_with
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.league import League
from modelassay.testbeds.league_storage import known_json
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.registry import TestbedKind, find
from modelassay.testbeds.testbed import Testbed

_WIDTH = 88


def listed(source: Path | None) -> TestbedListResult:
    """All testbeds and methods."""
    return {
        "schema_version": SCHEMA_VERSION,
        "testbeds": [
            {
                "name": kind.name,
                "title": kind.title,
                "claim": kind.claim,
                "references": list(kind.references),
                "slow": kind.slow,
            }
            for kind in kinds_with(source).values()
        ],
        "methods": [
            {"name": method.name, "title": method.title, "sees": method.sees}
            for method in METHODS.values()
        ],
    }


def as_text(result: TestbedListResult) -> str:
    """The list, for people."""
    wide = max(len(entry["name"]) for entry in result["testbeds"])
    lines = ["Testbeds:"]
    for entry in result["testbeds"]:
        slow = " (slow: only when asked for by name)" if entry["slow"] else ""
        lines.append(f"  {entry['name']:<{wide}}  {entry['title']}{slow}")
        lines.append(_indented(entry["claim"], wide + 4))
    lines.append("\nMethods:")
    wide = max(len(method["name"]) for method in result["methods"])
    lines += [
        f"  {method['name']:<{wide}}  {method['title']}; sees the {method['sees']}"
        for method in result["methods"]
    ]
    return "\n".join(lines)


def described(name: str, source: Path | None, *, seed: int, known: bool) -> TestbedShowResult:
    """A testbed, built.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    kind = _only(name, source)
    testbed = kind.build(seed)
    result: TestbedShowResult = {
        "schema_version": SCHEMA_VERSION,
        "name": kind.name,
        "title": kind.title,
        "claim": kind.claim,
        "references": list(kind.references),
        "seed": seed,
        "d_model": testbed.arms[0].activations.shape[1],
        "width": testbed.size.width,
        "k": testbed.size.k,
        "tokens": testbed.size.tokens,
        "similarity": testbed.similarity,
        "arms": [_arm(testbed, arm) for arm in testbed.arms],
        "known": jsonable(known_json(testbed.known())) if known else None,
    }
    return result


def _arm(testbed: Testbed, arm: Arm) -> ArmEntry:
    model, activations = arm.model_truth, arm.activations_truth
    width, k = testbed.size.width, testbed.size.k
    return {
        "name": arm.name,
        "data": len(arm.data),
        "interventional": len(arm.interventional),
        "model_features": list(model.names),
        "activation_features": list(activations.names),
        "model_null": round(testbed.null(arm, model, width, k), 4),
        "activation_null": round(testbed.null(arm, activations, width, k), 4),
    }


def description(result: TestbedShowResult) -> str:
    """A testbed, for people."""
    lines = [
        f"{result['name']}: {result['title']}",
        _indented(result["claim"], 2),
        f"  {result['d_model']} dimensions; dictionaries of {result['width']} latents, "
        f"{result['k']} active; matched by {result['similarity']}; seed {result['seed']}",
    ]
    for arm in result["arms"]:
        lines.append(
            f"\n  arm {arm['name']}: {arm['data']:,} inputs, {arm['interventional']:,} "
            "interventional"
        )
        for of, names, null in (
            ("model", arm["model_features"], arm["model_null"]),
            ("activations", arm["activation_features"], arm["activation_null"]),
        ):
            some = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
            lines.append(
                f"    {len(names)} features of the {of} (chance matches {null:.3f}): {some}"
            )
    for number in result["known"] or []:
        lines.append(
            f"\n  {number['name']}: expected {number['expected']} ± {number['tolerance']}, "
            f"measured {number['measured']}, "
            f"{'reproduced' if number['reproduced'] else 'NOT reproduced'} ({number['source']})"
        )
    return "\n".join(lines)


def checked(name: str, source: Path | None, *, seed: int) -> TestbedCheckResult:
    """A testbed, held against the conformance suite.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    kind = _only(name, source)
    checks = conformance(kind, seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": kind.name,
        "passed": all(check.passed for check in checks),
        "checks": [{"name": c.name, "passed": c.passed, "found": c.found} for c in checks],
    }


def verdicts(result: TestbedCheckResult) -> str:
    """The checks, for people."""
    return "\n".join(
        f"{'passed' if check['passed'] else 'FAILED'}  {check['name']}: {check['found']}"
        for check in result["checks"]
    )


def headline(league: League, page: Path) -> str:
    """A league in a terminal: V and PAD~ of every method on every testbed."""
    wide = max(len(method.name) for method in league.methods)
    lines: list[str] = []
    for entry in league.testbeds:
        lines.append(f"{entry.name}: {entry.title}")
        for failure in league.failures:
            if failure.testbed == entry.name:
                lines.append(f"  FAILED {failure.what}, seed {failure.seed}: {failure.reason}")
        for method in league.methods:
            standing = league.standing(entry.name, method.name)
            if standing is not None:
                lines.append(
                    f"  {method.name:<{wide}}  V {_shown(standing.v.value)}  "
                    f"PAD~ {_shown(standing.pad_beyond_chance.value)}  found: {standing.found}"
                )
    known = [number for numbers in league.known.values() for number in numbers]
    reproduced = sum(number.reproduced for number in known)
    lines.append(f"{reproduced} of {len(known)} known numbers reproduced.")
    return "\n".join([*lines, f"The league is at {page}"])


def _shown(value: float) -> str:
    return "    –" if math.isnan(value) else f"{value:5.2f}"


def _only(name: str, source: Path | None) -> TestbedKind:
    kinds = kinds_with(source)
    found = find([name], kinds)
    return kinds.get(name, found[0])


def _indented(text: str, by: int) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=" " * by, subsequent_indent=" " * by)
