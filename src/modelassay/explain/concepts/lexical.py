"""Concepts that the lexical tokens of Python decide, by `tokenize`."""

import keyword
import re
import token

from modelassay.explain.concepts.lexer import CLOSES, Lexed, Token
from modelassay.explain.concepts.library import (
    MAX_BRACKET_DEPTH,
    MAX_INDENTATION,
    WORDS,
    level_names,
)
from modelassay.explain.concepts.source import Source
from modelassay.explain.concepts.spans import Spans

_LITERAL = re.compile(r"(?P<prefix>[A-Za-z]*)(?P<quotes>\"\"\"|'''|\"|')")
_INSIDE = {"(": "in parentheses", "[": "in square brackets", "{": "in braces"}
_PUNCTUATION = {
    ",": "comma", ":": "colon", ".": "dot",
    "(": "opening bracket", "[": "opening bracket", "{": "opening bracket",
    ")": "closing bracket", "]": "closing bracket", "}": "closing bracket",
}  # fmt: skip
_OPERATORS = frozenset(("+", "-", "*", "/", "//", "%", "**", "@", "<<", ">>", "&", "|", "^", "~"))
_COMPARISONS = frozenset(("<", ">", "<=", ">=", "==", "!="))
_BRACKET_DEPTHS = level_names("bracket depth", MAX_BRACKET_DEPTH)
_INDENTATIONS = level_names("indentation", MAX_INDENTATION)
_LAYOUT = frozenset((token.COMMENT, token.NL, token.INDENT, token.DEDENT, token.ENDMARKER))


def add_lexical_concepts(source: Source, lexed: Lexed, found: Spans, unknown: Spans) -> None:
    """Add every concept whose source is "tokens", and where it is unknown within the lexed part."""
    code = [t for t in lexed.tokens if t.kind not in _LAYOUT]
    imported = _add_imports(code, found)
    _add_decorators(code, found)
    _add_strings_and_comments(lexed.tokens, found)
    _add_signs(code, found)
    _add_names(code, imported, found)
    _add_brackets(lexed, found)
    _add_lines(source, lexed, found)
    _add_statements(source, lexed, found, unknown)


def formatted_strings(lexed: Lexed) -> list[tuple[int, int]]:
    """The f-strings that hold expressions."""
    return [
        (t.start, t.end)
        for t in lexed.tokens
        if t.kind == token.STRING and _is_formatted(t.text) and "{" in t.text
    ]


def _is_formatted(literal: str) -> bool:
    match = _LITERAL.match(literal)
    assert match is not None
    return bool(set("fFtT") & set(match["prefix"]))


def _add_strings_and_comments(tokens: list[Token], found: Spans) -> None:
    for item in tokens:
        if item.kind == token.COMMENT:
            found.add("comment", item.start, item.end)
        elif item.kind == token.STRING:
            match = _LITERAL.match(item.text)
            assert match is not None
            found.add("string", item.start, item.end)
            found.add("string start", item.start, item.start + match.end())
            found.add("string end", item.end - len(match["quotes"]), item.end)
            if _is_formatted(item.text):
                found.add("f-string", item.start, item.end)


def _add_signs(code: list[Token], found: Spans) -> None:
    for item in code:
        if item.kind == token.NUMBER:
            found.add("number", item.start, item.end)
        elif item.kind == token.OP:
            if item.text in _PUNCTUATION:
                found.add(_PUNCTUATION[item.text], item.start, item.end)
            elif item.text in _OPERATORS | _COMPARISONS:
                found.add("operator", item.start, item.end)
            elif item.text.endswith("="):
                found.add("assignment sign", item.start, item.end)


def _add_names(code: list[Token], imported: set[int], found: Spans) -> None:
    before = ""
    for item in code:
        if item.kind == token.NAME:
            for concept in _concepts_of_name(item.text, before):
                if concept != "attribute" or item.start not in imported:
                    found.add(concept, item.start, item.end)
        before = item.text


def _concepts_of_name(name: str, before: str) -> list[str]:
    concepts = [f"word {name}"] if name in WORDS else []
    if keyword.iskeyword(name):
        return [*concepts, "keyword"]
    if before in ("def", "class"):
        concepts.append("function name" if before == "def" else "class name")
    if before == ".":
        concepts.append("attribute")
    if len(name) > 4 and name.startswith("__") and name.endswith("__"):
        concepts.append("dunder name")
    letters = name.lstrip("_")
    if name.isupper() and sum(map(str.isalpha, name)) >= 2:
        concepts.append("upper-case name")
    elif letters[:1].isupper() and letters[1:2].islower():
        concepts.append("capitalised name")
    return concepts


def _add_imports(code: list[Token], found: Spans) -> set[int]:
    """Add the import statements; the offsets of the tokens in them."""
    inside: set[int] = set()
    start = after = end = -1
    before = ""
    for item in code:
        if item.kind == token.NEWLINE or item.text == ";":
            if start >= 0:
                found.add("import statement", start, end)
            if after >= 0:
                found.add("after import", after, end)
            start = after = -1
        elif start < 0 and (
            item.text == "import" or (item.text == "from" and before in ("", ";", ":"))
        ):
            # `from` also stands in `yield from` and `raise … from`, never at a statement's start.
            start = item.start
        if start >= 0:
            inside.add(item.start)
            end = item.end
            if item.text == "import":
                after = item.end
        before = "" if item.kind == token.NEWLINE else item.text
    return inside


def _add_decorators(code: list[Token], found: Spans) -> None:
    start = end = -1
    begins = True
    for item in code:
        if item.kind == token.NEWLINE:
            found.add("decorator", start, end)
            start = end = -1
        elif item.text == "@" and begins:
            start = item.start
        if start >= 0:
            end = item.end
        begins = item.kind == token.NEWLINE


def _add_brackets(lexed: Lexed, found: Spans) -> None:
    stack: list[str] = []
    mark = 0

    def close_segment(until: int) -> None:
        found.add(_BRACKET_DEPTHS[min(len(stack), MAX_BRACKET_DEPTH)], mark, until)
        if stack:
            found.add(_INSIDE[stack[-1]], mark, until)

    for item in lexed.tokens:
        if item.kind == token.OP and item.text in _INSIDE:
            close_segment(item.end)
            stack.append(item.text)
            mark = item.end
        elif item.kind == token.OP and item.text in CLOSES:
            close_segment(item.start)
            stack.pop()
            mark = item.start
    close_segment(lexed.end)


def _add_lines(source: Source, lexed: Lexed, found: Spans) -> None:
    for match in re.finditer("\n", source.text[: lexed.end]):
        found.add("line break", match.start(), match.end())
    last_row = 0
    for item in lexed.tokens:
        if item.kind == token.NL:
            start = source.line_start(item.row)
            if not source.text[start : item.start].strip():
                found.add("blank line", start, item.end)
        elif item.kind not in (*_LAYOUT, token.NEWLINE):
            if item.row > last_row:
                found.add("line start", item.start, item.start + 1)
            last_row = item.last_row


def _add_statements(source: Source, lexed: Lexed, found: Spans, unknown: Spans) -> None:
    depth, covered = 0, 0
    first: Token | None = None
    for item in lexed.tokens:
        if item.kind == token.INDENT:
            depth += 1
        elif item.kind == token.DEDENT:
            depth -= 1
        elif item.kind == token.NEWLINE and first is not None:
            found.add("end of statement", item.start, item.end)
            start = source.line_start(first.row)
            found.add(_INDENTATIONS[min(depth, MAX_INDENTATION)], start, item.end)
            _hide_indentation(unknown, covered, start)
            first, covered = None, item.end
        elif item.kind not in _LAYOUT and first is None:
            first = item
            found.add("statement start", item.start, item.start + 1)
    _hide_indentation(unknown, covered, lexed.end)


def _hide_indentation(unknown: Spans, start: int, end: int) -> None:
    """Between statements stand comments and blank lines: Python gives them no indentation."""
    for concept in _INDENTATIONS:
        unknown.add(concept, start, end)
