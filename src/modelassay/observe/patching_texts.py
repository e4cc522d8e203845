"""Labelled pairs from files: subject-verb agreement, indirect objects, greater-than.

Formats: JSON lines with `clean_prefix`, `patch_prefix`, `clean_answer` and `patch_answer` (as in
Marks et al. 2024, "Sparse feature circuits"); CSV with `clean` and `corrupted` (as in Hanna et al.
2024, "Have faith in faithfulness"), whose answers follow from the sentences.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelassay.core.errors import CorruptFileError, UnknownNameError
from modelassay.core.files import translate_os_errors
from modelassay.observe.patching_pairs import PairText

_NAMES = re.compile(r"\b([A-Z]\w+) and ([A-Z]\w+)\b")
_YEARS = re.compile(r"from the year (\d\d)(\d\d) to the year \1$")


def read_pairs(path: str | Path) -> list[PairText]:
    """All pairs of a file, whose columns say which kind it is.

    Raises:
        UnknownNameError: if the file's ending is neither .jsonl nor .csv.
        StorageError: if it cannot be read.
        CorruptFileError: if a row lacks a column, or its sentence is of no known form.
    """
    path = Path(path)
    if path.suffix not in (".jsonl", ".csv"):
        raise UnknownNameError("Ending of a file of pairs", path.suffix, [".jsonl", ".csv"])
    with translate_os_errors(path), path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".csv":
            return _each(path, list(csv.DictReader(lines)))
        text = lines.read().splitlines()
    try:
        return _each(path, [json.loads(line) for line in text if line.strip()])
    except json.JSONDecodeError as error:
        raise CorruptFileError(
            f"Every line must be a JSON object; got {error.msg!r} in {str(path)!r}. "
            "Write one pair a line."
        ) from error


def _each(path: Path, rows: Sequence[Mapping[str, str]]) -> list[PairText]:
    pairs: list[PairText] = []
    for number, row in enumerate(rows, start=1):
        pair = _pair(row)
        if pair is None:
            raise CorruptFileError(
                "A pair must have clean_prefix, patch_prefix, clean_answer and patch_answer, or "
                "clean and corrupted sentences of a known form; got "
                f"{', '.join(map(str, row))} in row {number} of {str(path)!r}. Rename the columns."
            )
        pairs.append(pair)
    return pairs


def _pair(row: Mapping[str, str]) -> PairText | None:
    if {"clean_prefix", "patch_prefix", "clean_answer", "patch_answer"} <= set(row):
        return PairText(
            clean=row["clean_prefix"],
            corrupt=row["patch_prefix"],
            answers=(row["clean_answer"],),
            wrong=(row["patch_answer"],),
        )
    if not {"clean", "corrupted"} <= set(row):
        return None
    return greater_than(row["clean"], row["corrupted"]) or indirect_object(
        row["clean"], row["corrupted"]
    )


def greater_than(clean: str, corrupt: str) -> PairText | None:
    """A war from 1352 to 13…: later years answer it; the corrupt one begins in 1301.

    Reference: Hanna et al. 2023, "How does GPT-2 compute greater-than?".
    """
    years = _YEARS.search(clean)
    if years is None:
        return None
    first = int(years[2])
    return PairText(
        clean=clean,
        corrupt=corrupt,
        answers=tuple(f"{year:02d}" for year in range(first + 1, 100)),
        wrong=tuple(f"{year:02d}" for year in range(first + 1)),
    )


def indirect_object(clean: str, corrupt: str) -> PairText | None:
    """Of two persons one gives: the other answers; the corrupt one has a third giver.

    Reference: Wang et al. 2022, "Interpretability in the wild".
    """
    names = _NAMES.search(clean)
    if names is None:
        return None
    # The giver is the one of the two whose name stands again later.
    after = clean[names.end() :]
    again = [name for name in names.groups() if re.search(rf"\b{name}\b", after)]
    if len(again) != 1:
        return None
    other = names[2] if again[0] == names[1] else names[1]
    return PairText(clean=clean, corrupt=corrupt, answers=(f" {other}",), wrong=(f" {again[0]}",))
