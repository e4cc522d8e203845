"""Concept labels of subword tokens: alignment, padding, and texts that are not Python."""

import numpy as np
import pytest
import torch

from modelassay.activations.corpus import TokenizedCorpus, corpus_from_texts, tokenize
from modelassay.explain.concepts import concept_labels
from modelassay.explain.concepts.labels import first_characters
from modelassay.subjects.load import load_subject


@pytest.fixture(scope="module")
def tokenizer():
    return load_subject("bundled").tokenizer


def tokens_with(contexts, labels, concept):
    column = labels.labels[:, :, labels.names.index(concept)]
    found = []
    for context, position in column.nonzero().tolist():
        start, end = contexts.spans[context, position].tolist()
        found.append(contexts.corpus.documents[int(contexts.document[context])].text[start:end])
    return found


def test_tokens_have_the_label_of_their_first_visible_character(tokenizer):
    text = "def f(a, b):\n    return a +b # é😀\n\n\nx = g( '1')\n"
    contexts = tokenize(corpus_from_texts([text], source="test"), tokenizer, context_tokens=64)
    labels = concept_labels(contexts)
    assert labels is not None
    assert tokens_with(contexts, labels, "parameter") == ["a", " b"]
    assert tokens_with(contexts, labels, "line break") == ["\n    ", "\n", "\n", "\n", "\n"]
    assert tokens_with(contexts, labels, "blank line") == ["\n", "\n"]
    assert tokens_with(contexts, labels, "assignment sign") == [" ="]
    assert tokens_with(contexts, labels, "word return") == ["return"]
    assert tokens_with(contexts, labels, "closing bracket") == ["):"]  # its first character decides
    # All four bytes of the one character carry its label.
    assert tokens_with(contexts, labels, "comment").count("😀") == 4
    assert tokens_with(contexts, labels, "string start") == [" '"]


def test_padding_bos_and_empty_spans_are_unknown(tokenizer):
    texts = ["x = 1\ny = 2\n", "z = 3\n" * 30]
    contexts = tokenize(corpus_from_texts(texts, source="test"), tokenizer, context_tokens=32)
    labels = concept_labels(contexts)
    assert labels is not None
    assert not labels.known[~contexts.measured].any()
    assert not labels.labels[~contexts.measured].any()
    assert labels.known[contexts.measured].any(-1).all()
    assert labels.labels.shape == (*contexts.tokens.shape, len(labels.names))


def test_contexts_of_one_document_continue_each_other(tokenizer):
    text = '"""Doc\n' + "word " * 60 + '"""\nx = (1,\n' + "2, " * 40 + ")\n"
    corpus = corpus_from_texts([text], source="test")
    short = tokenize(corpus, tokenizer, context_tokens=16, min_tokens=2)
    long = tokenize(corpus, tokenizer, context_tokens=256)
    one, other = concept_labels(short), concept_labels(long)
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.labels[short.measured], other.labels[long.measured])
    assert len(tokens_with(short, one, "docstring")) > 60


def test_prose_gives_none(tokenizer):
    texts = ["Once upon a time there was a girl who didn't like rain.\n" * 3]
    contexts = tokenize(corpus_from_texts(texts, source="test"), tokenizer, context_tokens=16)
    assert concept_labels(contexts) is None


def test_tokens_without_text_give_none():
    contexts = TokenizedCorpus(
        corpus=corpus_from_texts(["x = 1"], source="test"),
        tokens=torch.zeros(1, 4, dtype=torch.int64), mask=torch.ones(1, 4, dtype=torch.bool),
        measured=torch.ones(1, 4, dtype=torch.bool), document=torch.tensor([0]),
        spans=torch.full((1, 4, 2), -1),
    )  # fmt: skip
    assert concept_labels(contexts) is None


def test_first_characters_by_hand():
    text = "  a\n\t\u2003𝔘 "
    spans = np.array([[0, 3], [0, 2], [3, 7], [4, 6], [7, 8], [2, 2], [-1, -1], [6, 8]])
    assert first_characters(text, spans).tolist() == [2, 0, 6, 4, 7, -1, -1, 6]
