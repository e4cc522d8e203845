"""Rows, known numbers and pictures of a league, to and from JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.picture import Drawing, Grid, Marks, Picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One decomposition in one arm."""

    testbed: str
    arm: str
    method: str
    seed: int
    """Of the construction."""
    fit: int
    """Which fit to that construction, from 0."""
    v: float
    """NaN where neither truth was found."""
    match_model: float
    match_activations: float
    found: str
    """"model", "activations", "both", "neither" or "partly"."""
    s_graph: float
    """NaN where the testbed knows no covectors."""
    pad: float
    """1 if the decomposition is nearest to this arm's model truth, 0 if to another's, 1/n if n tie;
    NaN with one arm."""
    own: dict[str, float]
    """What else the testbed measures."""
    seconds: float
    """This row's share of the time that fitting and scoring took."""


def row_from(entry: dict[str, Any]) -> Row:
    """A row from its JSON, in which NaN is null."""
    content = {field.name: _number(entry[field.name]) for field in fields(Row)}
    content["own"] = {name: _number(value) for name, value in entry["own"].items()}
    return Row(**content)


def known_json(numbers: Sequence[KnownNumber]) -> list[dict[str, Any]]:
    """Known numbers for JSON."""
    return [asdict(number) | {"reproduced": number.reproduced} for number in numbers]


def known_from(entries: Sequence[dict[str, Any]]) -> tuple[KnownNumber, ...]:
    """The inverse of `known_json`."""
    names = [field.name for field in fields(KnownNumber)]
    return tuple(KnownNumber(**{name: _number(entry[name]) for name in names}) for entry in entries)


def drawings_json(drawings: Sequence[Drawing]) -> list[dict[str, Any]]:
    """Pictures and grids for JSON."""
    return [{"kind": type(drawing).__name__} | asdict(drawing) for drawing in drawings]


def drawings_from(entries: Sequence[dict[str, Any]]) -> tuple[Drawing, ...]:
    """The inverse of `drawings_json`."""
    return tuple(map(_drawing_from, entries))


def _drawing_from(entry: dict[str, Any]) -> Drawing:
    content = {name: value for name, value in entry.items() if name != "kind"}
    if entry["kind"] == "Grid":
        for name in ("row_names", "column_names"):
            content[name] = tuple(entry[name])
        shape = len(entry["row_names"]), len(entry["column_names"])
        content["values"] = _tensor([v for row in entry["values"] for v in row]).reshape(shape)
        return Grid(**content)
    content["marks"] = tuple(map(_marks_from, entry["marks"]))
    return Picture(**content)


def _marks_from(entry: dict[str, Any]) -> Marks:
    content = dict(entry)
    for name in ("x", "y"):
        content[name] = _tensor(entry[name])
    return Marks(**content)


def _tensor(values: list[float | None]) -> Tensor:
    return torch.tensor([_number(value) for value in values], dtype=torch.float32)


def _number(value: Any) -> Any:
    return math.nan if value is None else value
