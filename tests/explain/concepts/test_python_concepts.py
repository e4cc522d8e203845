"""Concepts of Python source: hand-derived labels on tricky texts, and what must stay unknown."""

import ast
import itertools
import random
import token

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelassay.activations.stdlib import stdlib_corpus
from modelassay.explain.concepts import LIBRARY, python_concepts
from modelassay.explain.concepts.lexer import lex
from modelassay.explain.concepts.source import Source

NAMES = [c.name for c in LIBRARY]


def at_all(text):
    return python_concepts(text).at(np.arange(len(text)))


def runs(text, flags):
    """The maximal runs of flagged characters, as text."""
    edges = np.flatnonzero(np.diff(flags.astype(int), prepend=0, append=0))
    return [text[start:end] for start, end in edges.reshape(-1, 2)]


def where(text, concept):
    labels, known = at_all(text)
    column = NAMES.index(concept)
    assert known[:, column].any(), f"{concept} is unknown everywhere"
    return runs(text, labels[:, column])


def unknown(text, concept):
    _, known = at_all(text)
    return runs(text, ~known[:, NAMES.index(concept)])


def test_every_concept_is_named_once_and_described_in_one_sentence():
    assert len(set(NAMES)) == len(NAMES)
    for concept in LIBRARY:
        assert concept.description.endswith("."), concept
        assert concept.description[0].isupper() or concept.description[0] == "`", concept


CASES = [
    # strings and comments
    ("x = rb'a#' + '''b\n'c''' # d", "string", ["rb'a#'", "'''b\n'c'''"]),
    ("x = rb'a#' + '''b\n'c''' # d", "string start", ["rb'", "'''"]),
    ("x = rb'a#' + '''b\n'c''' # d", "string end", ["'", "'''"]),
    ("x = rb'a#' + '''b\n'c''' # d", "comment", ["# d"]),
    ("x = f'{a}{f\"{b!r:>{w}}\"}' + 'c'", "string", ["f'{a}{f\"{b!r:>{w}}\"}'", "'c'"]),
    ("x = f'{a}{f\"{b!r:>{w}}\"}' + 'c'", "f-string", ["f'{a}{f\"{b!r:>{w}}\"}'"]),
    ("x = Rf'a' 'b' F'''\nc'''", "f-string", ["Rf'a'", "F'''\nc'''"]),
    ('"""M."""\ndef f():\n  "D"\n  "no"\nclass C: r"E"', "docstring", ['"""M."""', '"D"', 'r"E"']),
    ("f'no docstring'", "docstring", []),
    ("async def f():\n    ('D')\n", "docstring", ["'D'"]),
    # names
    ("def f(g): pass\nasync  def h(): pass", "function name", ["f", "h"]),
    ("class A(B): pass", "class name", ["A"]),
    ("class A(B): c = def_ = 1", "defined name", ["A", "c", "def_"]),
    ("async \\\n def  f(): pass", "defined name", ["f"]),
    ("a, b[i], c.d = e = x", "assigned variable", ["a", "e"]),
    ("for i, (j, k) in x: pass", "assigned variable", ["i", "j", "k"]),
    ("with a as b, c as d: n += (m := 1)", "assigned variable", ["b", "d", "n", "m"]),
    ("z = [y for y in x]; w: int = 1", "assigned variable", ["z", "y", "w"]),
    ("def f(a, /, b: int = 1, *c, d=2, **e): pass", "parameter", ["a", "b", "c", "d", "e"]),
    ("g = lambda a, *b: a", "parameter", ["a", "b"]),
    ("f(a, b=b, **c)\nclass A(metaclass=M): pass", "keyword argument", ["b", "metaclass"]),
    ("a.b . c(1.5, x.\\\ny)\nx = ...", "attribute", ["b", "c", "y"]),
    ("import a.b\nfrom .c.d import e\nx.y", "attribute", ["y"]),
    ("f(a.b(c)[0](d), (e)(g), h (i))", "call target", ["f", "b", "e", "h"]),
    ("class A:\n  def __init__(s): s.__x = __y__", "dunder name", ["__init__", "__y__"]),
    ("MAX_1, A, _B2C, Path, X1", "upper-case name", ["MAX_1", "_B2C"]),
    ("MAX, A, Path, _Foo, pAth, None", "capitalised name", ["Path", "_Foo"]),
    ("for x in y: self.x = not_in", "keyword", ["for", "in"]),
    ("for x in y: self.x = selfish", "word self", ["self"]),
    ("x = 'def' # def\ndef f(): pass", "word def", ["def"]),
    # signs
    ("x = 0x1F + 1_0.5e-3j - .5", "number", ["0x1F", "1_0.5e-3j", ".5"]),
    ("x = -a ** b // c if a != b else ~d", "operator", ["-", "**", "//", "!=", "~"]),
    ("def f(*a, b=1) -> c: b += (d := 1); b @= 2", "assignment sign", ["=", "+=", ":=", "@="]),
    ("x[a:b, c] = {d: 1,}", "colon", [":", ":"]),
    ("x[a:b, c] = {d: 1,}", "comma", [",", ","]),
    ("x = ... if a.b else 1.5", "dot", ["."]),
    ("f([{'('}])", "opening bracket", ["([{"]),
    ("f([{'('}])", "closing bracket", ["}])"]),
    # brackets: a bracket itself counts as outside
    ("f(a[b])+c", "bracket depth 0", ["f(", ")+c"]),
    ("f(a[b])+c", "bracket depth 1", ["a[", "]"]),
    ("f(a[b])+c", "bracket depth 2", ["b"]),
    ("((({x})))", "bracket depth 3+", ["{x}"]),
    ("f(a[b], '[')+{c}", "in parentheses", ["a[", "], '['"]),
    ("f(a[b], '[')+{c}", "in square brackets", ["b"]),
    ("f(a[b], '[')+{c}", "in braces", ["c"]),
    ("f(a, (b)) + (c) + x[0]", "call arguments", ["a, (b)"]),
    ("x[a[0], 1:2] + [3]", "index", ["a[0], 1:2"]),
    # lines
    ("if a:\n\tb = (1,\n c)\n# d\n\n  # e\nf", "indentation 0", ["if a:\n", "f"]),
    ("if a:\n\tb = (1,\n c)\n# d\n\n  # e\nf", "indentation 1", ["\tb = (1,\n c)\n"]),
    ("if a:\n  b; c\n\f\nd", "indentation 1", ["  b; c\n"]),
    ("if a:\n  b(1,\n c)\n\n# d\nx = '''\ne''' + f", "line start", ["i", "b", "c", "x"]),
    ("if a:\n  b(1,\n c) ; d\n", "statement start", ["i", "b"]),
    ("a = (1, # c\n\n 2)\n\nb", "end of statement", ["\n"]),
    ("a = 1\n\nb", "line break", ["\n\n"]),
    ("a = '\\\n\\\n'\n \t\nb\n\n", "blank line", [" \t\n", "\n"]),
    # statements
    ("@a.b(\n c) # d\n@e\ndef f(): x @ y", "decorator", ["@a.b(\n c)", "@e"]),
    ("import a, b as c; d\nfrom . import (e,\n f) # g", "import statement",
     ["import a, b as c", "from . import (e,\n f)"]),
    ("import a, b; d\nfrom . import (e,\n f) # g", "after import", [" a, b", " (e,\n f)"]),
    ("def f():\n  yield from a\n  raise b from c", "import statement", []),
    ("try: import a\nexcept E: from b import c", "after import", [" a", " c"]),
    ("def f(a=(1), *, b: int = 2, c): pass", "default value", ["1", "2"]),
    ("def f(a: int = 1) -> List[str]: b: C = d", "annotation", ["int", "List[str]", "C"]),
    ("def f():\n  return (a +\n b)\n  return", "returned value", [" (a +\n b)"]),
    ("@d\nclass A:\n  x = 1\n  # c\ny", "inside class", ["class A:\n  x = 1"]),
    ("@d\nasync def f():\n  x = 1\ny", "inside function", ["async def f():\n  x = 1"]),
    ("while a:\n  b\nelse: c\nd", "inside loop", ["while a:\n  b\nelse: c"]),
    ("if a: b\nelif c: d\nelse: e\nf", "inside if", ["if a: b\nelif c: d\nelse: e"]),
    ("try:\n  a\nexcept* B: c\nfinally:\n  d\ne", "inside try",
     ["try:\n  a\nexcept* B: c\nfinally:\n  d"]),
    ("with a: b\nc", "inside with", ["with a: b"]),
    ("if (a or b): c\nwhile not d: e", "condition", ["a or b", "not d"]),
    ("f(x for x in y), [a for a in b], {1: 2}", "comprehension",
     ["(x for x in y)", "[a for a in b]"]),
    # newer syntax
    ("match x:\n  case A(b=1): y = 1\n", "assigned variable", ["y"]),
    ("match x:\n  case A(b=1): y = 1\n", "indentation 1", ["  case A(b=1): y = 1\n"]),
    ("match(x)", "call target", ["match"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "concept", "expected"), CASES)
def test_hand_derived_labels(text, concept, expected):
    assert where(text, concept) == expected


def test_characters_outside_ascii_do_not_shift_labels():
    text = "'𝔘𝄞' ; ﬁ_é𝔘 = f(ç, '中' , k=中.ü(x)) # 𝄞"
    assert where(text, "string") == ["'𝔘𝄞'", "'中'"]
    # The parser turns ﬁ into the two letters "fi": the span is that of the text.
    assert where(text, "assigned variable") == ["ﬁ_é𝔘"]
    assert where(text, "call target") == ["f", "ü"]
    assert where(text, "keyword argument") == ["k"]
    assert where(text, "comment") == ["# 𝄞"]


@pytest.mark.parametrize("line_break", ["\r\n", "\r"])
def test_line_breaks_of_other_systems(line_break):
    text = "def f(a):\n    '''D\n\n    '''\n\n    return a \\\n  + 1 # c\n"
    labels, known = at_all(text)
    copies = np.flatnonzero([c == "\n" for c in text])
    expected = np.insert(labels, copies, labels[copies], axis=0) if line_break == "\r\n" else labels
    other, other_known = at_all(text.replace("\n", line_break))
    np.testing.assert_array_equal(other, expected)
    assert known[:, NAMES.index("docstring")].all()
    assert other_known[:, NAMES.index("docstring")].all()


def test_byte_order_mark_is_unknown_and_moves_nothing():
    labels, known = at_all("import a # b")
    marked, marked_known = at_all("\ufeffimport a # b")
    np.testing.assert_array_equal(marked[1:], labels)
    np.testing.assert_array_equal(marked_known[1:], known)
    assert not marked_known[0].any()


def test_inside_fstrings_expressions_are_unknown_but_the_string_is_not():
    text = "x = f'{a.b(1)}' + f'c'"
    assert where(text, "f-string") == ["f'{a.b(1)}'", "f'c'"]
    for concept in ("attribute", "number", "call target", "opening bracket", "word self"):
        assert unknown(text, concept) == ["f'{a.b(1)}'"]
    # What surrounds the f-string is known inside it too.
    assert unknown("g(f'{a}')", "call arguments") == []
    assert where("g(f'{a}')", "call arguments") == ["f'{a}'"]


def test_text_that_does_not_parse_keeps_what_its_tokens_decide():
    text = "def f(x):\n    print 'a' # b\n"
    assert where(text, "comment") == ["# b"]
    assert where(text, "string") == ["'a'"]
    assert where(text, "function name") == ["f"]
    for concept in ("inside function", "call target", "docstring", "parameter"):
        assert unknown(text, concept) == [text]


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("a = 1\nb = '''c\nd = 2\n", "'''c\nd = 2\n"),
        ("a = 1\nb = (c,\nd = 2\n", "(c,\nd = 2\n"),
        ("a = 1\nb = (c]\nd = 2\n", "(c]\nd = 2\n"),
        ("a = 1\nb = c)\nd = 2\n", ")\nd = 2\n"),
        ("a = 1\nb = 'c\nd = 2\n", "'c\nd = 2\n"),
        ("if a:\n    b = 1\n  c = 2\n", "  c = 2\n"),
    ],
)
def test_nothing_is_known_behind_the_place_where_the_tokenizer_stumbles(text, lost):
    for concept in ("number", "string", "comment", "bracket depth 0", "line break"):
        (found,) = unknown(text, concept)
        assert found.strip(" ").endswith(lost.strip(" "))
        assert len(found) <= len(lost) + 2
        assert text.index("1") < len(text) - len(found)


@pytest.mark.parametrize("text", ["a = 1\0\nb", "a = '\ud800'", "(" * 300 + ")" * 300, "", "\f\n"])
def test_texts_that_python_refuses_outright(text):
    labels, known = at_all(text)
    assert labels.shape == known.shape == (len(text), len(LIBRARY))
    assert not (labels & ~known).any()


@settings(deadline=None, max_examples=150)
@given(
    st.text(
        alphabet=st.sampled_from("ab1 \n\t\f\r\\'\"#()[]{}:;,.=@f𝔘def\u2028\x0b\0"), max_size=80
    )
)
def test_no_text_is_too_strange(text):
    labels, known = at_all(text)
    assert not (labels & ~known).any()
    # Exactly one bracket depth holds where depths are known.
    depths = [i for i, n in enumerate(NAMES) if n.startswith("bracket depth")]
    sure = known[:, depths].all(1)
    assert (labels[sure][:, depths].sum(1) == 1).all()


@pytest.fixture(scope="module")
def library_files():
    documents = [d for d in stdlib_corpus().documents if 500 < len(d.text) < 40_000]
    return [d.text for d in random.Random(0).sample(documents, 24)]


def test_cutting_a_file_never_makes_a_known_label_wrong(library_files):
    rng = random.Random(1)
    compared = 0
    for text in library_files[:15]:
        whole, whole_known = at_all(text)
        cut = text[: rng.randrange(1, len(text))]
        # The line of the cut itself may read differently: "imp" is a name, "import" is not.
        # Comments before it may lie inside a block that goes on only behind the cut.
        code = [t for t in lex(Source(cut)).tokens if t.kind in (token.NAME, token.OP)]
        before = cut.rfind("\n", 0, code[-1].start) + 1 if code else 0
        part, part_known = at_all(cut)
        both = part_known[:before] & whole_known[:before]
        compared += both.sum()
        np.testing.assert_array_equal(part[:before][both], whole[:before][both])
    assert compared > 1_000_000 / 4


def names_of(tree, kind, attribute):
    nodes = [n for n in ast.walk(tree) if isinstance(n, kind)]
    nodes.sort(key=lambda n: (n.lineno, n.col_offset))
    return [getattr(n, attribute) for n in nodes]


def depths(node, depth, lines):
    """Every statement with the number of blocks around it; an `elif` opens none of its own."""
    for child in itertools.chain(*(getattr(node, f, ()) for f in ("body", "orelse", "finalbody"))):
        is_elif = lines[child.lineno - 1][child.col_offset :].startswith("elif")
        yield child, depth - is_elif
        yield from depths(child, depth + 1 - is_elif, lines)
    for part in itertools.chain(*(getattr(node, f, ()) for f in ("handlers", "cases"))):
        yield from depths(part, depth, lines)


def test_labels_agree_with_the_tokens_and_the_tree_of_library_files(library_files):
    checked = 0
    for text in library_files:
        tree = ast.parse(text)
        if any(isinstance(n, ast.JoinedStr) for n in ast.walk(tree)) or not text.isascii():
            continue
        labels, known = at_all(text)

        def found(concept, text=text, labels=labels):
            return runs(text, labels[:, NAMES.index(concept)])

        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        assert found("function name") == names_of(tree, functions, "name")
        assert found("class name") == names_of(tree, ast.ClassDef, "name")
        assert found("parameter") == names_of(tree, ast.arg, "arg")
        names = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
        stored = [n.id for n in names if isinstance(n.ctx, ast.Store)]
        assert sorted(found("assigned variable")) == sorted(stored)
        assert sorted(found("attribute")) == sorted(names_of(tree, ast.Attribute, "attr"))
        for concept, kind in (("comment", token.COMMENT), ("number", token.NUMBER)):
            assert found(concept) == [t.text for t in lex(Source(text)).tokens if t.kind == kind]
        lines = text.split("\n")
        offsets = np.cumsum([0, *(len(line) + 1 for line in lines)])
        for statement, depth in depths(tree, 0, lines):
            here = offsets[statement.lineno - 1] + statement.col_offset
            if not text[offsets[statement.lineno - 1] : here].strip():
                level = NAMES.index(f"indentation {depth}" if depth < 4 else "indentation 4+")
                assert labels[here, level]
                assert known[here, level]
                checked += 1
    assert checked > 1000
