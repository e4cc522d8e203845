"""Corpus, split and tokenization: definitions, properties, real texts, messages."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from modelassay.activations.corpus import (
    Corpus,
    Document,
    TokenizedCorpus,
    corpus_from_texts,
    read_texts,
    split_of,
    tokenize,
)
from modelassay.core.errors import TooFewTokensError, UnknownNameError, ValueRangeError
from modelassay.subjects.subject import Subject


def tokenized(subject: Subject, texts: list[str], **options: int) -> TokenizedCorpus:
    corpus = corpus_from_texts(texts, source="test")
    return tokenize(corpus, subject.tokenizer, **({"context_tokens": 16} | options))


def test_every_measured_token_is_the_text_at_its_span(subject: Subject, corpus: Corpus) -> None:
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=16, min_tokens=2)
    read = ["" for _ in corpus.documents]
    for context in range(len(contexts)):
        document = int(contexts.document[context])
        text = corpus.documents[document].text
        for position in contexts.measured[context].nonzero()[:, 0].tolist():
            start, stop = contexts.spans[context, position].tolist()
            token = int(contexts.tokens[context, position])
            # A character of two bytes is two tokens with one span.
            assert subject.tokenizer.encode(text[start:stop], add_special_tokens=False).count(token)
            if start == len(read[document]):
                read[document] += text[start:stop]
    assert read == [document.text for document in corpus.documents]


def test_contexts_begin_with_bos_and_end_with_padding(subject: Subject, corpus: Corpus) -> None:
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=16)
    assert (contexts.tokens[:, 0] == subject.tokenizer.bos_token_id).all()
    assert contexts.mask[:, 0].all()
    assert not contexts.measured[:, 0].any()
    assert torch.equal(contexts.measured[:, 1:], contexts.mask[:, 1:])
    assert not (contexts.mask[:, 1:] & ~contexts.mask[:, :-1]).any()
    assert (contexts.spans[~contexts.measured] == -1).all()


def test_text_cannot_smuggle_in_a_special_token(subject: Subject) -> None:
    contexts = tokenized(subject, ["before <s> after"], context_tokens=32)
    assert (contexts.tokens[contexts.measured] != subject.tokenizer.bos_token_id).all()


def test_a_short_end_is_dropped(subject: Subject) -> None:
    # 16 = BOS + 15 letters; 4 letters and a BOS remain, 5 tokens.
    assert len(tokenized(subject, ["x" * 19], min_tokens=5)) == 2
    assert len(tokenized(subject, ["x" * 19], min_tokens=6)) == 1


def test_select_takes_whole_documents(subject: Subject, corpus: Corpus) -> None:
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=16)
    sides = {split: contexts.select(split) for split in ("fit", "heldout")}
    for split, side in sides.items():
        assert {corpus.documents[i].split for i in side.document.tolist()} == {split}
    assert len(sides["fit"]) + len(sides["heldout"]) == len(contexts)
    assert corpus.select("fit").documents == tuple(
        document for document in corpus.documents if document.split == "fit"
    )


@pytest.mark.parametrize("n_tokens", [1, 100, 500, 10_000])
def test_take_holds_what_is_asked_for(subject: Subject, corpus: Corpus, n_tokens: int) -> None:
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=16)
    some = contexts.take(n_tokens, torch.Generator().manual_seed(1))
    assert min(n_tokens, contexts.n_tokens) <= some.n_tokens < n_tokens + 16
    assert some.document.tolist() == sorted(some.document.tolist())


def test_fingerprints_tell_contents_apart(subject: Subject, corpus: Corpus) -> None:
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=16)
    seen = {contexts.fingerprint()}
    for change in ("tokens", "mask", "measured", "document"):
        altered = contexts[slice(None)]
        values = getattr(altered, change).clone()
        values[3] = 1 - values[3] if values.dtype != torch.bool else ~values[3]
        object.__setattr__(altered, change, values)
        seen.add(altered.fingerprint())
    moved = Corpus(
        source="letters", documents=(*corpus.documents[:-1], Document(
            name="text-11", text=corpus.documents[-1].text, split="fit"
        )),
    )  # fmt: skip
    seen.add(tokenize(moved, subject.tokenizer, context_tokens=16).fingerprint())
    assert len(seen) == 6
    assert contexts.fingerprint() in seen


@given(st.text(), st.floats(0.01, 0.99))
def test_the_split_depends_on_the_name_alone(name: str, share: float) -> None:
    assert split_of(name, share) == split_of(name, share)
    if split_of(name, share) == "heldout":
        assert split_of(name, share + (1 - share) / 2) == "heldout"


def test_the_split_has_the_share_asked_for() -> None:
    heldout = sum(split_of(str(i), 0.1) == "heldout" for i in range(10_000))
    assert 900 < heldout < 1100  # three standard deviations


def test_a_file_name_that_is_no_text_has_a_side() -> None:
    assert split_of("bad\udcff.txt") in ("fit", "heldout")


def test_a_file_is_cut_at_separator_lines(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    # No line end after the last separator, spaces behind one, and one inside a line.
    path.write_text(
        "<|endoftext|>\nOne.\n\nTwo.\n<|endoftext|>  \nA <|endoftext|> b\n<|endoftext|>"
    )
    assert [d.text for d in read_texts(path).documents] == ["One.\n\nTwo.", "A <|endoftext|> b"]


@given(st.lists(st.sampled_from(["word ", "\n", "\n\n", "\n \n", "x" * 3000]), min_size=1))
def test_a_file_without_separators_is_cut_into_runs(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str]
) -> None:
    text = "".join(pieces) * 7 + "end"
    path = tmp_path_factory.mktemp("texts") / "novel.txt"
    path.write_text(text)
    texts = [document.text for document in read_texts(path).documents]
    assert "".join("".join(texts).split()) == "".join(text.split())
    # A run is closed at the first line end behind 8,000 characters.
    longest_line = max(map(len, text.splitlines()))
    assert max(map(len, texts)) <= 8000 + longest_line
    assert all(len(piece) > 3000 for piece in texts[:-1])


def test_a_folder_gives_a_document_a_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "inner" / "a.md").write_text("third")
    (tmp_path / "a.py").write_bytes(b"first \xff")
    (tmp_path / "c.bin").write_text("not text")
    corpus = read_texts(tmp_path)
    assert [(d.name, d.text) for d in corpus.documents] == [
        ("a.py", "first \N{REPLACEMENT CHARACTER}"),
        ("b.txt", "second"),
        ("inner/a.md", "third"),
    ]
    assert corpus.source == tmp_path.name


@pytest.mark.parametrize(
    ("name", "documents", "begins", "ends"),
    [
        ("text_tinystories/stories.txt", 873, "One day, a little girl", "a good sister."),
        ("text_tinystories/cs336_sample.txt", 5, "Once upon a time", "play together."),
    ],
)
def test_real_stories(shared_data: Path, name: str, documents: int, begins: str, ends: str) -> None:
    corpus = read_texts(shared_data / name)
    assert len(corpus.documents) == documents
    assert corpus.documents[0].text.startswith(begins)
    assert corpus.documents[-1].text.rstrip('"').endswith(ends)
    assert not any("<|endoftext|>" in document.text for document in corpus.documents)


@pytest.mark.parametrize(
    "name",
    [
        "text_tinyshakespeare/input.txt",
        "text_wikitext2/valid.txt",
        "text_novels/charlotte_bronte.txt",
    ],
)
def test_real_texts_without_separators_have_both_sides(shared_data: Path, name: str) -> None:
    corpus = read_texts(shared_data / name)
    lengths = [len(document.text) for document in corpus.documents]
    assert max(lengths) < 15_000
    sizes = {s: sum(len(d.text) for d in corpus.select(s).documents) for s in ("fit", "heldout")}
    assert 0.05 < sizes["heldout"] / (sizes["fit"] + sizes["heldout"]) < 0.2


def test_a_real_tokenizer_gives_back_the_text(shared_data: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizer_gpt2")
    corpus = read_texts(shared_data / "text_tinystories/stories.txt")
    corpus = Corpus(source=corpus.source, documents=corpus.documents[:20])
    contexts = tokenize(corpus, tokenizer, context_tokens=64, min_tokens=2)
    for number, document in enumerate(corpus.documents):
        mine = contexts[contexts.document == number]
        assert tokenizer.decode(mine.tokens[mine.measured]) == document.text


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    for corpus in ([], ["", ""]):
        with pytest.raises(TooFewTokensError, match="at least one non-empty document"):
            corpus_from_texts(corpus, source="nothing")
    with pytest.raises(TooFewTokensError, match=r"got 0 documents from 'empty\.txt'"):
        read_texts(tmp_path / "empty.txt")


def test_a_missing_file_is_refused_with_near_misses(tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("Once.")
    with pytest.raises(UnknownNameError, match=r"Did you mean '.*stories\.txt'"):
        read_texts(tmp_path / "storys.txt")


def test_a_side_without_documents_is_refused(subject: Subject) -> None:
    corpus = Corpus(source="one", documents=(Document(name="a", text="abcdefghijkl", split="fit"),))
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=16)
    for whole in (corpus, contexts):
        with pytest.raises(TooFewTokensError, match="on the 'heldout' side of the split; got none"):
            whole.select("heldout")


def test_impossible_settings_are_refused(subject: Subject) -> None:
    corpus = corpus_from_texts(["some text to cut"], source="test")
    with pytest.raises(ValueRangeError, match="at least min_tokens=8 and 2; got 7"):
        tokenize(corpus, subject.tokenizer, context_tokens=7)
    with pytest.raises(ValueRangeError, match="and 2; got 1"):
        tokenize(corpus, subject.tokenizer, context_tokens=1, min_tokens=1)
    with pytest.raises(TooFewTokensError, match="at least one context of 60 tokens; got none"):
        tokenize(corpus, subject.tokenizer, context_tokens=64, min_tokens=60)
    with pytest.raises(ValueRangeError, match=r"between 0 and 1, both excluded; got 1\.0"):
        split_of("a", 1.0)
    without_bos = AutoBos(subject.tokenizer)
    with pytest.raises(ValueRangeError, match="prepend_bos needs a tokenizer with a BOS token"):
        tokenize(corpus, without_bos, context_tokens=16, prepend_bos=True)
    assert tokenize(corpus, without_bos, context_tokens=16).measured[0, 0]


class AutoBos:
    """A tokenizer that has no BOS token."""

    bos_token_id: int | None = None

    def __init__(self, tokenizer: object) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: str, **options: object) -> object:
        return self._tokenizer(text, **options)
