"""Where a reader of Python stands after each token: concepts to probe a model's state for.

Labels say what is true once a token has been read, as `tokenize` decides it: a token that opens a
string stands inside, the one that closes it outside. Nothing is known behind the first place where
the tokenizer stumbles, in f-strings with expressions (which Python below 3.12 gives as one token),
and, for what belongs to a statement, between statements.
"""

import keyword
import re
import token
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ValueRangeError
from modelassay.explain.concepts.lexer import CLOSES, Lexed, Token, lex
from modelassay.explain.concepts.lexical import formatted_strings
from modelassay.explain.concepts.source import UNKNOWN, Source
from modelassay.observe.probes.sweep_items import TokenConcept

States = NDArray[np.float32]
"""One value for each number of characters read, NaN where it is unknown."""

MAX_INDENTATION, MAX_BRACKETS, MAX_PLACE = 6, 4, 80
_PREFIX = re.compile(r"[A-Za-z]*")
_LAYOUT = frozenset((token.COMMENT, token.NL, token.INDENT, token.DEDENT, token.ENDMARKER))
_LOOPS = frozenset(("for", "while"))

DESCRIPTIONS = {
    "in string": "What was read ends inside a string literal.",
    "in comment": "What was read ends inside a comment.",
    "after colon": "What was read last is the first word after a colon, or a part of it.",
    "in signature": "Between `def` and the colon that ends the function's signature.",
    "in import": "Inside an import statement.",
    "in loop": "In a statement in the body of a `for` or `while`.",
    "keyword next": "The next word is a keyword.",
    "name seen before": "The name that was just read stood in this context before.",
    "indentation depth": f"Enclosing indented blocks of the statement, up to {MAX_INDENTATION}.",
    "bracket depth": f"Open brackets, up to {MAX_BRACKETS}.",
    "place in line": f"Characters since the line began, up to {MAX_PLACE}.",
    "begins with space": "The token begins with white space; nothing before it matters.",
}
"""Every concept, in one sentence."""
GRADED = frozenset(("indentation depth", "bracket depth", "place in line"))


def code_state(contexts: TokenizedCorpus) -> tuple[TokenConcept, ...]:
    """The concepts at every token of contexts of Python source.

    Raises:
        ValueRangeError: if hardly any of the text is Python.
    """
    values = {
        name: np.full(contexts.tokens.shape, np.nan, dtype=np.float32) for name in DESCRIPTIONS
    }
    owners = contexts.document.numpy()
    characters = lexed_characters = 0
    for index in np.unique(owners).tolist():
        text = contexts.corpus.documents[index].text
        source = Source(text)
        lexed = lex(source)
        characters += len(source.text)
        lexed_characters += lexed.end
        states = _states(source, lexed)
        previous = _previous_places(lexed)
        for row in np.flatnonzero(owners == index).tolist():
            spans = contexts.spans[row].numpy()
            starts, ends = _offsets(source, spans)
            inside = (ends >= 0) & (ends <= lexed.end)
            for name, state in states.items():
                values[name][row, inside] = state[ends[inside]]
            _label_row(values, row, text, spans, starts, ends, inside, previous)
    if lexed_characters < characters / 2:
        raise ValueRangeError(
            f"These concepts need Python source; got texts of which {lexed_characters} of "
            f"{characters} characters are. Give --corpus a folder of Python files."
        )
    return tuple(
        TokenConcept(
            name=name, description=description, values=torch.from_numpy(values[name]),
            graded=name in GRADED,
        )
        for name, description in DESCRIPTIONS.items()
    )  # fmt: skip


def _offsets(
    source: Source, spans: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets of each token's first character and of one past its last; -1 without text."""
    offset_of = np.append(source.offset_of, UNKNOWN)
    text = spans[:, 1] > spans[:, 0]
    starts = np.where(text, offset_of[np.where(text, spans[:, 0], -1)], -1)
    ends = np.where(text, offset_of[np.where(text, spans[:, 1] - 1, -1)] + 1, -1)
    return starts, np.where(starts < 0, -1, ends)


def _label_row(
    values: dict[str, States],
    row: int,
    text: str,
    spans: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    inside: NDArray[np.bool_],
    previous: dict[int, int],
) -> None:
    """What depends on the token or on its context, and not on the place in the file alone."""
    known = np.flatnonzero(inside)
    first = int(starts[known].min()) if len(known) else 0
    for position in known.tolist():
        begin = text[int(spans[position, 0])]
        values["begins with space"][row, position] = begin.isspace()
        earlier = previous.get(int(ends[position]))
        if earlier is not None:
            values["name seen before"][row, position] = earlier >= first


def _previous_places(lexed: Lexed) -> dict[int, int]:
    """For each name, by the offset of its end: where it last began before, or -1."""
    last: dict[str, int] = {}
    found: dict[int, int] = {}
    for item in lexed.tokens:
        if item.kind == token.NAME and not keyword.iskeyword(item.text):
            found[item.end] = last.get(item.text, -1)
            last[item.text] = item.start
    return found


def _states(source: Source, lexed: Lexed) -> dict[str, States]:
    makers: dict[str, Callable[[Source, Lexed], States]] = {
        "in string": _strings,
        "in comment": _comments,
        "after colon": _after_colon,
        "in signature": _signatures,
        "in import": _imports,
        "keyword next": _keyword_next,
        "bracket depth": _brackets,
        "place in line": _places,
    }
    states = {name: maker(source, lexed) for name, maker in makers.items()}
    states["indentation depth"], states["in loop"] = _blocks(source, lexed)
    for start, end in formatted_strings(lexed):
        for name in ("in string", "bracket depth", "keyword next"):
            states[name][start + 1 : end] = np.nan
    return states


def _blank(source: Source, value: float = 0.0) -> States:
    return np.full(len(source.text) + 1, value, dtype=np.float32)


def _code(lexed: Lexed) -> list[Token]:
    return [item for item in lexed.tokens if item.kind not in _LAYOUT]


def _strings(source: Source, lexed: Lexed) -> States:
    state = _blank(source)
    for item in lexed.tokens:
        if item.kind == token.STRING:
            prefix = _PREFIX.match(item.text)
            assert prefix is not None
            state[item.start + prefix.end() + 1 : item.end] = 1
    return state


def _comments(source: Source, lexed: Lexed) -> States:
    state = _blank(source)
    for item in lexed.tokens:
        if item.kind == token.COMMENT:
            state[item.start + 1 : item.end + 1] = 1
    return state


def _after_colon(source: Source, lexed: Lexed) -> States:
    state = _blank(source)
    before = ""
    for item in _code(lexed):
        if item.kind == token.NEWLINE:
            continue
        if before == ":":
            state[item.start + 1 : item.end + 1] = 1
        before = item.text if item.kind == token.OP else ""
    return state


def _signatures(source: Source, lexed: Lexed) -> States:
    state = _blank(source)
    start, depth = -1, 0
    for item in _code(lexed):
        if item.kind == token.NAME and item.text == "def":
            start, depth = item.end, 0
        elif item.kind == token.OP and start >= 0:
            depth += (item.text in CLOSES.values()) - (item.text in CLOSES)
            if item.text == ":" and depth == 0:
                state[start : item.start + 1] = 1
                start = -1
    return state


def _imports(source: Source, lexed: Lexed) -> States:
    state = _blank(source)
    start, begins = -1, True
    for item in _code(lexed):
        if item.kind == token.NEWLINE or item.text == ";":
            if start >= 0:
                state[start : item.start + 1] = 1
            start, begins = -1, True
            continue
        if begins and item.text in ("import", "from"):
            start = item.end
        begins = False
    return state


def _keyword_next(source: Source, lexed: Lexed) -> States:
    """Known between words of code; comments and line breaks are no words."""
    state = _blank(source, np.nan)
    words = [t for t in lexed.tokens if t.kind not in (_LAYOUT - {token.COMMENT})]
    words = [t for t in words if t.kind != token.NEWLINE]
    end = 0
    for item in words:
        is_keyword = item.kind == token.NAME and keyword.iskeyword(item.text)
        state[end : item.start + 1] = is_keyword
        end = item.end
    return state


def _brackets(source: Source, lexed: Lexed) -> States:
    change = np.zeros(len(source.text) + 2, dtype=np.float32)
    for item in lexed.tokens:
        if item.kind == token.OP:
            change[item.end] += (item.text in CLOSES.values()) - (item.text in CLOSES)
    return np.minimum(change.cumsum()[:-1], MAX_BRACKETS).astype(np.float32)


def _places(source: Source, lexed: Lexed) -> States:
    del lexed
    read = np.arange(len(source.text) + 1)
    starts = np.array([0, *(m.end() for m in re.finditer("\n", source.text))])
    begun = starts[np.searchsorted(starts, read, side="right") - 1]
    return np.minimum(read - begun, MAX_PLACE).astype(np.float32)


def _blocks(source: Source, lexed: Lexed) -> tuple[States, States]:
    """Indentation depth, and whether a loop's body encloses the statement."""
    depths, loops = _blank(source, np.nan), _blank(source, np.nan)
    openers: list[str] = []
    opener, first = "", -1
    for item in lexed.tokens:
        if item.kind == token.INDENT:
            openers.append(opener)
        elif item.kind == token.DEDENT and openers:
            openers.pop()
        elif item.kind == token.NEWLINE and first >= 0:
            part = slice(first, item.start + 1)
            depths[part] = min(len(openers), MAX_INDENTATION)
            loops[part] = not _LOOPS.isdisjoint(openers)
            first = -1
        elif item.kind not in _LAYOUT and first < 0:
            first, opener = item.start, item.text
    return depths, loops
