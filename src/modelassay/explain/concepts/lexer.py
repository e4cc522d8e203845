"""The lexical tokens of a file, as far as they can be trusted."""

import io
import token
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

from modelassay.explain.concepts.source import Source

CLOSES = {")": "(", "]": "[", "}": "{"}
"""Closing bracket -> the opening one."""
# Python 3.12 splits f-strings into tokens; 3.14 has template strings too.
_OPENERS = {getattr(token, n) for n in ("FSTRING_START", "TSTRING_START") if hasattr(token, n)}
_CLOSERS = {getattr(token, n) for n in ("FSTRING_END", "TSTRING_END") if hasattr(token, n)}


@dataclass(frozen=True, slots=True)
class Token:
    """One lexical token; an f-string is one token of kind STRING in every Python version."""

    kind: int
    text: str
    start: int
    """Offset of the first character."""
    end: int
    row: int
    """Line of the first character, from 1."""
    last_row: int


@dataclass(frozen=True, slots=True)
class Lexed:
    """What the tokenizer says of a file up to the first place where it stumbles.

    A bracket that is never closed, or closed by another kind, counts as such a place.
    """

    tokens: list[Token]
    end: int
    """From this offset on nothing is known."""
    opening: dict[int, int]
    """Offset of each closing bracket -> offset of the bracket that it closes."""


def lex(source: Source) -> Lexed:
    """Tokenize as far as it goes."""
    tokens: list[Token] = []
    opening: dict[int, int] = {}
    open_brackets: list[Token] = []
    end = len(source.text)
    for item in _tokens(source):
        if item is None:
            end = tokens[-1].end if tokens else 0
            break
        if item.kind == token.OP and item.text in CLOSES.values():
            open_brackets.append(item)
        elif item.kind == token.OP and item.text in CLOSES:
            if not open_brackets or open_brackets[-1].text != CLOSES[item.text]:
                end = item.start
                break
            opening[item.start] = open_brackets.pop().start
        tokens.append(item)
    if open_brackets:
        end = min(end, open_brackets[0].start)
    return Lexed([t for t in tokens if t.end <= end], end, opening)


def _tokens(source: Source) -> Iterator[Token | None]:
    """The tokens, then None if the tokenizer gave up before the end."""
    nested: list[tuple[int, int]] = []
    try:
        for item in tokenize.generate_tokens(io.StringIO(source.text).readline):
            start, end = source.offset(*item.start), source.offset(*item.end)
            kind, row = item.type, item.start[0]
            if kind == token.ERRORTOKEN:
                yield None
                return
            if kind in _OPENERS:
                nested.append((start, row))
                continue
            if kind in _CLOSERS:
                start, row = nested.pop()
                kind = token.STRING
            if not nested:
                yield Token(kind, source.text[start:end], start, end, row, item.end[0])
    except (tokenize.TokenError, SyntaxError, UnicodeError):
        yield None
