"""The table of concepts: what is labelled in Python source, in one sentence each."""

from dataclasses import dataclass
from typing import Literal

WORDS = (
    "def", "class", "return", "import", "from", "if", "elif", "else", "for", "while", "in", "not",
    "and", "or", "is", "None", "True", "False", "self", "with", "as", "try", "except", "raise",
    "lambda", "yield", "assert", "pass",
)  # fmt: skip
"""The single words that are concepts of their own."""
MAX_BRACKET_DEPTH = 3
MAX_INDENTATION = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """Something that is true or false at each character of a Python file."""

    name: str
    description: str
    """One sentence, shown in reports."""
    source: Literal["tokens", "tree"]
    """What it is computed from: the lexical tokens (`tokenize`) or the syntax tree (`ast`)."""
    hidden_in_fstrings: bool = False
    """True if an expression inside an f-string may have it without our seeing it.

    Python below 3.12 gives f-strings as one token and misplaces the tree nodes in them, so we never
    look inside: the concept is unknown there rather than absent.
    """


def _words() -> list[Concept]:
    return [
        Concept(
            name=f"word {word}",
            description=f"The word `{word}` in code, outside strings and comments.",
            source="tokens",
            hidden_in_fstrings=True,
        )
        for word in WORDS
    ]


def level_names(what: str, highest: int) -> tuple[str, ...]:
    """Concept names for the levels 0, 1, … of something; the last one is open-ended."""
    return (*(f"{what} {level}" for level in range(highest)), f"{what} {highest}+")


def _levels(what: str, highest: int, description: str) -> list[Concept]:
    return [
        Concept(
            name=name,
            description=description.format(f"{level}{' or more' * (level == highest)}"),
            source="tokens",
        )
        for level, name in enumerate(level_names(what, highest))
    ]


def _of(
    source: Literal["tokens", "tree"], descriptions: dict[str, str], *, hidden: bool = False
) -> list[Concept]:
    return [
        Concept(name=name, description=description, source=source, hidden_in_fstrings=hidden)
        for name, description in descriptions.items()
    ]


LIBRARY: tuple[Concept, ...] = (
    *_of(
        "tokens",
        {
            "string": "Inside a string literal, its prefix and quotes included.",
            "f-string": "Inside an f-string, the expressions in it included.",
            "string start": "The prefix and the opening quotes of a string literal.",
            "string end": "The closing quotes of a string literal.",
            "comment": "Inside a comment, from its `#` to the end of the line.",
            "line start": "The first character of code on a line; a comment is not code.",
            "statement start": "The first character of a statement's first line of code.",
            "end of statement": "The line break that ends a statement.",
            "line break": "Any line break.",
            "blank line": "On a line with nothing but white space, outside strings.",
            "decorator": "In a decorator, from its `@` to the end of the line.",
            "import statement": "Anywhere in an `import` or `from … import` statement.",
            "after import": "After the word `import` in an import statement.",
            "in parentheses": "The innermost open bracket is `(`.",
            "in square brackets": "The innermost open bracket is `[`.",
            "in braces": "The innermost open bracket is `{`, outside strings.",
        },
    ),
    *_levels(
        "bracket depth",
        MAX_BRACKET_DEPTH,
        "Number of brackets open here: {}; a bracket itself counts as outside.",
    ),
    *_levels(
        "indentation",
        MAX_INDENTATION,
        "In a statement indented by this many steps: {}; unknown between statements.",
    ),
    *_of(
        "tokens",
        {
            "keyword": "One of Python's reserved words, such as `def` or `None`.",
            "number": "A number literal.",
            "operator": "An operator sign such as `+`, `==` or `*`, wherever it stands.",
            "assignment sign": "`=`, `:=` or a form such as `+=`, also before default values.",
            "comma": "A comma in code.",
            "colon": "A colon in code (not `:=`).",
            "dot": "A dot in code (not in a number, not `...`).",
            "opening bracket": "`(`, `[` or `{` in code.",
            "closing bracket": "`)`, `]` or `}` in code.",
            "function name": "The name of a function where it is defined, after `def`.",
            "class name": "The name of a class where it is defined, after `class`.",
            "attribute": "A name after a dot, outside import statements.",
            "dunder name": "A name such as `__init__`, with two underscores on both sides.",
            "upper-case name": "An all upper-case name of two letters or more, such as `MAX_SIZE`.",
            "capitalised name": "A name that begins like `Path`: upper case, then lower case.",
        },
        hidden=True,
    ),
    *_words(),
    *_of(
        "tree",
        {
            "docstring": "Inside the docstring of a module, class or function.",
            "default value": "In the default value of a parameter.",
            "annotation": "In a type annotation of a parameter, a result or a variable.",
            "returned value": "After `return`, to the end of the statement.",
            "inside class": "From the word `class` to the end of the class's last statement.",
            "inside function": "From the word `def` to the end of the function's last statement.",
            "inside loop": "In a `for` or `while` statement, its first line included.",
            "inside if": "In an `if` statement, its tests, `elif` and `else` included.",
            "inside try": "In a `try` statement, its `except`, `else` and `finally` included.",
            "inside with": "In a `with` statement, its first line included.",
        },
    ),
    *_of(
        "tree",
        {
            "assigned variable": "A variable given a value: by assignment, `:=`, `for` or `with`.",
            "defined name": "A function name, class name or variable that is defined here.",
            "parameter": "The name of a parameter where a function or lambda is defined.",
            "keyword argument": "The name before `=` in an argument of a call or class statement.",
            "call target": "The name of what is called, straight before the arguments of a call.",
            "call arguments": "Between the parentheses of a call, at any depth.",
            "index": "Between the square brackets of a subscript, at any depth.",
            "comprehension": "In a comprehension or generator expression.",
            "condition": "In the test of an `if`, `elif` or `while`, without brackets around it.",
        },
        hidden=True,
    ),
)
"""All concepts, in the order of the label table."""
