import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modelassay.subjects.token_text import token_strings


def byte_level(words):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate([*alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer), vocabulary


def test_byte_level_tokens_keep_their_spaces_and_escape_lone_bytes():
    tokenizer, vocabulary = byte_level(["Ġthe", "ĊĊ", "ĠÃ©"])
    wanted = {"Ġthe": " the", "ĊĊ": "\n\n", "ĠÃ©": " é", "a": "a", "Ċ": "\n", "Ã": "\\xc3"}
    assert token_strings(tokenizer, [vocabulary[piece] for piece in wanted]) == list(
        wanted.values()
    )


def test_every_byte_has_a_text_and_the_printable_ones_are_themselves():
    tokenizer, vocabulary = byte_level([])
    texts = token_strings(tokenizer, range(256))
    letters = {text for text in texts if len(text) == 1 and text.isascii()}
    assert letters == {chr(code) for code in range(128)}
    assert sum(text.startswith("\\x") for text in texts) == 128
    assert len(set(texts)) == len(vocabulary)


def test_pieces_with_byte_fallback_keep_the_space_that_decoders_drop():
    pieces = ["a", "▁Once", "<0xE2>", "<0x0A>", "upon"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    assert fast.decode([1]) == "Once"
    assert token_strings(fast, range(5)) == ["a", " Once", "\\xe2", "\n", "upon"]


def test_ids_beyond_the_vocabulary_are_named_by_number():
    tokenizer, vocabulary = byte_level([])
    assert token_strings(tokenizer, [len(vocabulary) + 5]) == [f"<{len(vocabulary) + 5}>"]


@pytest.mark.parametrize("ids", [[], [7, 8]])
def test_without_a_tokenizer_ids_are_their_own_text(ids):
    assert token_strings(None, ids) == [str(token) for token in ids]
