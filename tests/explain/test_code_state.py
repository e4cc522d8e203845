"""What is true after each token of Python source, on texts read by eye."""

import math

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from modelassay.activations.corpus import TokenizedCorpus, corpus_from_texts, tokenize
from modelassay.core.errors import ValueRangeError
from modelassay.explain.code_state import DESCRIPTIONS, GRADED, code_state
from modelassay.subjects.load import BUNDLED

TEXT = """\
import os  # why
def area(a, b=[1]):
    for x in a:
        y = "s:" + area
    return {a: y}
"""


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(BUNDLED)


def contexts_of(
    text: str, tokenizer: PreTrainedTokenizerFast, length: int = 128
) -> TokenizedCorpus:
    corpus = corpus_from_texts([text], source="a test")
    return tokenize(corpus, tokenizer, context_tokens=length, min_tokens=2)


def states(text: str, tokenizer: PreTrainedTokenizerFast) -> dict[str, list[tuple[str, float]]]:
    """For each concept, every token's text and value."""
    contexts = contexts_of(text, tokenizer)
    found = {}
    spans = contexts.spans[0].tolist()
    for concept in code_state(contexts):
        found[concept.name] = [
            (text[start:end], value)
            for (start, end), value in zip(spans, concept.values[0].tolist(), strict=True)
            if end > start
        ]
    return found


def where(found: list[tuple[str, float]]) -> str:
    """The text of the tokens after which the concept holds."""
    return "|".join(text.strip() for text, value in found if value == 1)


def values_at(found: list[tuple[str, float]], token: str) -> list[float]:
    return [value for text, value in found if text.strip() == token]


def test_strings_and_comments_hold_from_their_opening_to_their_end(tokenizer):
    found = states(TEXT, tokenizer)
    assert where(found["in string"]) == '"|s|:'
    assert where(found["in comment"]) == "#|wh|y"


def test_a_signature_ends_at_its_colon_and_an_import_at_its_line(tokenizer):
    found = states(TEXT, tokenizer)
    # The tokenizer has "):" as one token, which is behind the colon when it has been read.
    assert where(found["in signature"]) == "def|a|rea|(|a|,|b|=[|1|]"
    assert where(found["in import"]) == "import|os||#|wh|y"


def test_the_word_after_a_colon_holds_and_a_colon_in_a_string_does_not(tokenizer):
    assert where(states(TEXT, tokenizer)["after colon"]) == "for|y|y"


def test_a_keyword_is_foreseen_and_the_inside_of_words_is_unknown(tokenizer):
    found = states("x = y\nif x:\n    pass\nz = 1\n", tokenizer)["keyword next"]
    assert [text for text, value in found if value == 1] == [" y", "\n", ":", "\n    "]
    assert values_at(found, "=") == [0, 0]
    word = states("abcdefgh = 1\n", tokenizer)["keyword next"]
    assert math.isnan(word[0][1])


def test_a_name_is_known_again(tokenizer):
    found = states("abc = 1\nxyz = abc\n", tokenizer)["name seen before"]
    assert [value for _, value in found if not math.isnan(value)] == [0, 0, 1]


def test_names_before_the_context_do_not_count(tokenizer):
    text = "os = 1\n" + "x = 1\n" * 40 + "os = 2\n"
    contexts = contexts_of(text, tokenizer, length=32)
    assert len(contexts) > 2
    found = next(c for c in code_state(contexts) if c.name == "name seen before")
    last = found.values[-1]
    spans = contexts.spans[-1].tolist()
    names = [
        value
        for (start, end), value in zip(spans, last.tolist(), strict=True)
        if text[start:end].strip() == "os"
    ]
    assert names == [0.0]


def test_depths_are_counted(tokenizer):
    found = states(TEXT, tokenizer)
    assert values_at(found["bracket depth"], "1") == [2]
    depth = found["indentation depth"]
    assert values_at(depth, "return") == [1]
    assert values_at(depth, "+") == [2]
    assert values_at(found["in loop"], "+") == [1]
    assert values_at(found["in loop"], "return") == [0]
    assert values_at(found["place in line"], "import") == [6]


def test_f_strings_with_expressions_and_broken_code_are_unknown(tokenizer):
    inside = states('x = f"ab {y} cd"\nz = 1\n', tokenizer)["in string"]
    assert any(math.isnan(value) for _, value in inside)
    broken = states("x = 1\ny = 2\nz = 3\nw = (\n", tokenizer)["bracket depth"]
    assert math.isnan(broken[-1][1])
    assert values_at(broken, "1") == [0]


def test_every_concept_has_values_and_a_description(tokenizer):
    found = code_state(contexts_of(TEXT * 3, tokenizer))
    assert [c.name for c in found] == list(DESCRIPTIONS)
    for concept in found:
        known = concept.values[concept.values.isfinite()]
        assert concept.graded == (concept.name in GRADED)
        assert concept.graded or set(known.tolist()) <= {0.0, 1.0}
        assert len(known.unique()) > 1, concept.name
    assert bool(torch.stack([c.values[:, 0] for c in found]).isnan().all())  # BOS has no text


def test_what_is_not_python_is_refused(tokenizer):
    with pytest.raises(ValueRangeError, match="need Python source; got texts of which"):
        code_state(contexts_of("It's a fine day (or so. " * 8, tokenizer))
