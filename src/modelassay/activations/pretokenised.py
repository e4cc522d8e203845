"""Corpora that are tokens already: for models without a tokenizer, and for data cut elsewhere."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus, split_of
from modelassay.core.errors import CorruptFileError, ShapeError, ValueRangeError


def corpus_from_tokens(
    tokens: Int[Tensor, "context token"],
    *,
    source: str,
    measured: Bool[Tensor, "context token"] | None = None,
    names: Sequence[str] | None = None,
    heldout_share: float = 0.1,
) -> TokenizedCorpus:
    """A tokenized corpus of contexts that are given as token ids, each its own document.

    Args:
        measured: the positions that are harvested and measured; by default all.
        names: one per context; the split is by a hash of it. By default its number.

    Raises:
        ShapeError: if `measured` or `names` does not fit the tokens.
    """
    names = [f"{i:06d}" for i in range(len(tokens))] if names is None else names
    measured = torch.ones_like(tokens, dtype=torch.bool) if measured is None else measured
    if measured.shape != tokens.shape or len(names) != len(tokens):
        raise ShapeError(
            f"measured and names must fit tokens of shape {list(tokens.shape)}; got "
            f"{list(measured.shape)} and {len(names)} names. Pass one of each per context."
        )
    documents = tuple(
        Document(
            name=name, text=" ".join(map(str, row.tolist())), split=split_of(name, heldout_share)
        )
        for name, row in zip(names, tokens, strict=True)
    )
    return TokenizedCorpus(
        corpus=Corpus(source=source, documents=documents),
        tokens=tokens,
        mask=torch.ones_like(tokens, dtype=torch.bool),
        measured=measured,
        document=torch.arange(len(tokens)),
        spans=torch.full((*tokens.shape, 2), -1),
    )


def read_tokens(path: str | Path, *, heldout_share: float = 0.1) -> TokenizedCorpus:
    """Read a `.jsonl` file of token ids.

    One object a line, all with the same number of tokens:
    ``{"name": "17+4", "tokens": [17, 4, 113], "measured": [2]}``. `name` (its line number by
    default) decides the split; `measured` lists the positions to measure (all by default).

    Raises:
        CorruptFileError: if a line is not of that form.
        ShapeError: if the lines have different lengths.
    """
    rows: list[list[int]] = []
    positions: list[list[int]] = []
    names: list[str] = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        name, tokens, measured = _entry(line, f"{path}, line {number}", f"{number:06d}")
        rows.append(tokens)
        positions.append(measured)
        names.append(name)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1:
        raise ShapeError(
            f"All lines of {str(path)!r} must hold the same number of tokens; got {lengths}. "
            "Cut or pad them to one length."
        )
    mask = torch.zeros(len(rows), lengths[0], dtype=torch.bool)
    for row, measured in enumerate(positions):
        if not all(0 <= position < lengths[0] for position in measured):
            raise ValueRangeError(
                f"Measured positions must lie in 0 … {lengths[0] - 1}; got {measured} for "
                f"{names[row]!r} in {str(path)!r}. Correct the line."
            )
        mask[row, measured] = True
    return corpus_from_tokens(
        torch.tensor(rows),
        source=Path(path).name,
        measured=mask,
        names=names,
        heldout_share=heldout_share,
    )


def _entry(line: str, where: str, name: str) -> tuple[str, list[int], list[int]]:
    try:
        content = json.loads(line)
        tokens = [int(token) for token in content["tokens"]]
        measured = [int(position) for position in content.get("measured", range(len(tokens)))]
        return str(content.get("name", name)), tokens, measured
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptFileError(
            f'A line must read {{"tokens": [1, 2, …]}}; got {line[:60]!r} at {where}. '
            "Correct it, or pass a text file."
        ) from error
