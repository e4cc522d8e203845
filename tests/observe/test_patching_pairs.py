"""Pairs of prompts from texts: alignment, answers, and the labelled sets."""

import pytest
import torch
from transformers import AutoTokenizer

from modelassay.core.errors import (
    CorruptFileError,
    ShapeError,
    TooFewTokensError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.observe.patching_pairs import (
    PairText,
    PromptPairs,
    logit_difference,
    probability_difference,
    tokenize_pairs,
)
from modelassay.observe.patching_texts import read_pairs


class Letters:
    """A tokenizer of letters, without a BOS token."""

    bos_token_id = None

    def __call__(self, text, **_options):
        return {"input_ids": [ord(letter) for letter in text]}


def spelled(row):
    return "".join(chr(token) for token in row.tolist())


def pair(clean, corrupt, answer=" is", wrong=" are"):
    return PairText(clean=clean, corrupt=corrupt, answers=(answer,), wrong=(wrong,))


def test_what_answers_share_belongs_to_the_prompts():
    pairs = tokenize_pairs(Letters(), [pair("The man", "The men")])
    assert spelled(pairs.clean[0]) == "The man "
    assert spelled(pairs.corrupt[0]) == "The men "
    assert (spelled(pairs.answers[0]), spelled(pairs.wrong[0])) == ("i", "a")


def test_an_answer_that_begins_another_is_told_apart_by_the_space_after_it():
    pairs = tokenize_pairs(Letters(), [pair("The men", "The man", " go", " goes")])
    assert spelled(pairs.clean[0]) == "The men go"
    assert (spelled(pairs.answers[0]), spelled(pairs.wrong[0])) == (" ", "e")


def test_tokens_of_both_kinds_of_answers_are_dropped():
    later = PairText(clean="ab", corrupt="ac", answers=("53", "60"), wrong=("52", "10"))
    pairs = tokenize_pairs(Letters(), [later])
    assert (spelled(pairs.answers[0]), spelled(pairs.wrong[0])) == ("6", "1")


def test_unequal_prompts_are_refused_or_counted():
    texts = [pair("The man", "The men"), pair("A dog", "Two dogs")]
    with pytest.raises(ShapeError, match=r"same number of tokens; got 6 in 'A dog' and 9 in"):
        tokenize_pairs(Letters(), texts)
    pairs = tokenize_pairs(Letters(), texts, unfit="leave out")
    assert (len(pairs), pairs.left_out) == (1, 1)
    with pytest.raises(TooFewTokensError, match="got none among 1"):
        tokenize_pairs(Letters(), texts[1:], unfit="leave out")


def test_answers_that_nothing_tells_apart_are_refused():
    with pytest.raises(ValueRangeError, match="must tell answers and wrong answers apart"):
        tokenize_pairs(Letters(), [pair("a", "b", " is", " is")])


def columns(**changed):
    table = {
        "clean": torch.tensor([[1, 2]]),
        "corrupt": torch.tensor([[1, 3]]),
        "lengths": torch.tensor([2]),
        "answers": torch.tensor([[4]]),
        "wrong": torch.tensor([[5]]),
    }
    return table | changed


def test_pairs_that_do_not_correspond_are_refused():
    with pytest.raises(ShapeError, match="must have the same lengths"):
        PromptPairs(**columns(corrupt=torch.tensor([[1, 3, 4]])))
    with pytest.raises(ShapeError, match="one row for each of the 1 pairs"):
        PromptPairs(**columns(lengths=torch.tensor([2, 2])))
    with pytest.raises(ValueRangeError, match="no token that is both; got otherwise in pair 0"):
        PromptPairs(**columns(wrong=torch.tensor([[4]])))
    with pytest.raises(ValueRangeError, match="must have answers"):
        PromptPairs(**columns(answers=torch.tensor([[-1]])))


def test_measures_of_several_answers_are_log_odds_and_probabilities():
    pairs = PromptPairs(**columns(answers=torch.tensor([[1, 2]]), wrong=torch.tensor([[0, -1]])))
    p = torch.tensor([[0.2, 0.3, 0.4, 0.1]])
    odds = torch.tensor([(0.7 / 0.2)]).log()
    torch.testing.assert_close(logit_difference(p.log() + 3.0, pairs), odds)
    torch.testing.assert_close(probability_difference(p.log() + 3.0, pairs), torch.tensor([0.5]))


def test_agreement_pairs_of_a_tokenizer_of_words(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizer_gpt2")
    texts = read_pairs(shared_data / "labelled_sva" / "simple_train.jsonl")
    pairs = tokenize_pairs(tokenizer, texts, unfit="leave out")
    assert (len(texts), len(pairs), pairs.left_out) == (480, 413, 67)
    words = tokenizer.convert_ids_to_tokens(pairs.answers[0].tolist())
    assert words == ["Ġhave"]


def test_greater_than_pairs_answer_with_later_years(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizer_gpt2")
    texts = read_pairs(shared_data / "labelled_prompts" / "greater_than_data.csv")
    assert texts[0].clean == "The contract lasted from the year 1352 to the year 13"
    assert (texts[0].answers[0], texts[0].wrong[-1]) == ("53", "52")
    pairs = tokenize_pairs(tokenizer, texts[:20])
    assert tokenizer.decode(pairs.clean[0], skip_special_tokens=True) == texts[0].clean
    first = pairs.answers[0][pairs.answers[0] >= 0]
    assert {tokenizer.decode([token]) for token in first} == {f"{y}" for y in range(53, 100)}


def test_indirect_objects_are_the_person_named_once(shared_data):
    texts = read_pairs(shared_data / "labelled_prompts" / "ioi.csv")
    assert len(texts) == 499
    assert texts[0].clean.startswith("Then, Aaron and Amber were working at the house. Aaron")
    assert (texts[0].answers, texts[0].wrong) == ((" Amber",), (" Aaron",))
    for text in texts:
        assert text.clean.count(text.answers[0].strip()) == 1
        assert text.clean.count(text.wrong[0].strip()) >= 2


def test_files_of_pairs_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"must be one of: .jsonl, .csv; got '.txt'"):
        read_pairs(tmp_path / "pairs.txt")
    broken = tmp_path / "pairs.jsonl"
    broken.write_text('{"clean_prefix": "a"}\n')
    with pytest.raises(CorruptFileError, match=r"got clean_prefix in row 1"):
        read_pairs(broken)
    broken.write_text("{\n")
    with pytest.raises(CorruptFileError, match="Every line must be a JSON object"):
        read_pairs(broken)
