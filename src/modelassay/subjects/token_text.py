"""The text of single tokens, as a reader should see it."""

from collections.abc import Sequence
from typing import Any


def token_strings(tokenizer: Any | None, ids: Sequence[int]) -> list[str]:
    """The text of single tokens, each as it stands inside a text.

    Spaces are kept, and a token that is no whole character is shown by its bytes, escaped as in
    ``\\xe2``. Without a tokenizer a token's text is its id.
    """
    if tokenizer is None:
        return [str(token) for token in ids]
    # Some decoders drop the space at the start of a text, so a token is decoded after another.
    anchor = _anchor(tokenizer)
    before = tokenizer.decode([anchor])
    texts = tokenizer.batch_decode([[anchor, token] for token in ids])
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    return [
        text[len(before) :]
        if piece is not None and text.startswith(before) and "\ufffd" not in text
        else _from_piece(piece, token)
        for text, piece, token in zip(texts, pieces, ids, strict=True)
    ]


def _anchor(tokenizer: Any) -> int:
    """A token of plain letters, which no decoder joins with what follows."""
    special = set(tokenizer.all_special_ids)
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        if token not in special and text.isascii() and text.isalpha():
            return token
    return 0


def _from_piece(piece: str | None, token: int) -> str:
    """The text of a vocabulary entry: a byte, byte-level letters, or itself."""
    if piece is None:
        return f"<{token}>"
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)]).decode("utf-8", "backslashreplace")
    if all(letter in _BYTE_OF_LETTER for letter in piece):
        letters = bytes(_BYTE_OF_LETTER[letter] for letter in piece)
        return letters.decode("utf-8", "backslashreplace")
    return piece


def _byte_of_letter() -> dict[str, int]:
    """The alphabet of byte-level BPE: printable bytes stand for themselves, others for 256 + n.

    Reference: Radford et al. 2019, the released encoder.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(256 + position): byte for position, byte in enumerate(others)
    }


_BYTE_OF_LETTER = _byte_of_letter()
