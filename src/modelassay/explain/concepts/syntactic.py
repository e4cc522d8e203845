"""Concepts that the syntax tree of Python decides, by `ast`."""

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from modelassay.explain.concepts.source import Source
from modelassay.explain.concepts.spans import Spans

_FORMATTED = tuple(getattr(ast, n) for n in ("JoinedStr", "TemplateStr") if hasattr(ast, n))
_NAME = re.compile(r"\w+")
_DEFINITION = re.compile(r"(async(\s|\\\n)+)?(def|class)(\s|\\\n)+")
_STATEMENTS: dict[str, tuple[type[ast.AST], ...]] = {
    "inside class": (ast.ClassDef,),
    "inside function": (ast.FunctionDef, ast.AsyncFunctionDef),
    "inside loop": (ast.For, ast.AsyncFor, ast.While),
    "inside if": (ast.If,),
    "inside try": (ast.Try, ast.TryStar),
    "inside with": (ast.With, ast.AsyncWith),
    "comprehension": (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp),
}
_INSIDE = {kind: concept for concept, kinds in _STATEMENTS.items() for kind in kinds}


def parse(text: str) -> ast.Module | None:
    """The syntax tree, or None where the text is not Python (of this version)."""
    with warnings.catch_warnings():
        # "invalid escape sequence" is the author's business, not ours.
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        # ValueError: null bytes and lone surrogates. The others: brackets nested too deep.
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def add_syntactic_concepts(
    source: Source, tree: ast.Module, opening: dict[int, int], found: Spans
) -> None:
    """Add every concept whose source is "tree".

    Args:
        source: the text that was parsed.
        tree: its syntax tree.
        opening: offset of each closing bracket -> offset of the bracket that it closes.
        found: where to add them.
    """
    painter = _Painter(source, opening, found)
    for node in _walk(tree):
        kind = type(node)
        if kind in _INSIDE:
            painter.add(_INSIDE[kind], node)
        if kind in _PAINT:
            _PAINT[kind](painter, node)


def _walk(tree: ast.Module) -> Iterator[ast.AST]:
    """All nodes but those inside f-strings, whose positions are wrong below Python 3.12."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, _FORMATTED):
            stack.extend(ast.iter_child_nodes(node))


class _Painter:
    """Adds intervals for nodes of each kind."""

    def __init__(self, source: Source, opening: dict[int, int], found: Spans) -> None:
        self._source = source
        self._opening = opening
        self._found = found

    def _start(self, node: Any) -> int:
        return self._source.offset_of_byte(node.lineno, node.col_offset)

    def _end(self, node: Any) -> int:
        return self._source.offset_of_byte(node.end_lineno, node.end_col_offset)

    def add(self, concept: str, node: ast.AST) -> None:
        """The whole node."""
        self._found.add(concept, self._start(node), self._end(node))

    def _add_name(self, concept: str, start: int) -> None:
        # Not the length of the node's own name: the parser normalises identifiers (PEP 3131).
        match = _NAME.match(self._source.text, start)
        if match:
            self._found.add(concept, start, match.end())

    def _add_between_brackets(self, concept: str, node: ast.AST) -> None:
        closing = self._end(node) - 1
        if closing in self._opening:
            self._found.add(concept, self._opening[closing] + 1, closing)

    def module(self, node: ast.Module) -> None:
        self._docstring(node.body)

    def class_definition(self, node: ast.ClassDef) -> None:
        self._definition(node)

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._definition(node)
        if node.returns is not None:
            self.add("annotation", node.returns)

    def _definition(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._docstring(node.body)
        match = _DEFINITION.match(self._source.text, self._start(node))
        if match:
            self._add_name("defined name", match.end())

    def _docstring(self, body: list[ast.stmt]) -> None:
        match body:
            case [ast.Expr(value=ast.Constant(value=str()) as literal), *_]:
                self.add("docstring", literal)
            case _:
                pass

    def name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.add("assigned variable", node)
            self.add("defined name", node)

    def parameter(self, node: ast.arg) -> None:
        self._add_name("parameter", self._start(node))
        if node.annotation is not None:
            self.add("annotation", node.annotation)

    def parameters(self, node: ast.arguments) -> None:
        for default in (*node.defaults, *node.kw_defaults):
            if default is not None:
                self.add("default value", default)

    def annotated_assignment(self, node: ast.AnnAssign) -> None:
        self.add("annotation", node.annotation)

    def keyword_argument(self, node: ast.keyword) -> None:
        if node.arg is not None:
            self._add_name("keyword argument", self._start(node))

    def call(self, node: ast.Call) -> None:
        self._add_between_brackets("call arguments", node)
        if isinstance(node.func, ast.Name):
            self.add("call target", node.func)
        elif isinstance(node.func, ast.Attribute):
            end = self._end(node.func)
            start = end
            while _NAME.fullmatch(self._source.text, start - 1, end):
                start -= 1
            self._found.add("call target", start, end)

    def subscript(self, node: ast.Subscript) -> None:
        self._add_between_brackets("index", node)

    def test(self, node: ast.If | ast.While) -> None:
        self.add("condition", node.test)

    def result(self, node: ast.Return) -> None:
        self._found.add("returned value", self._start(node) + len("return"), self._end(node))


_PAINT: dict[type[ast.AST], Callable[[_Painter, Any], None]] = {
    ast.Module: _Painter.module,
    ast.ClassDef: _Painter.class_definition,
    ast.FunctionDef: _Painter.function,
    ast.AsyncFunctionDef: _Painter.function,
    ast.Name: _Painter.name,
    ast.arg: _Painter.parameter,
    ast.arguments: _Painter.parameters,
    ast.AnnAssign: _Painter.annotated_assignment,
    ast.keyword: _Painter.keyword_argument,
    ast.Call: _Painter.call,
    ast.Subscript: _Painter.subscript,
    ast.If: _Painter.test,
    ast.While: _Painter.test,
    ast.Return: _Painter.result,
}
