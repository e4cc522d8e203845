"""A text as Python reads it: line breaks made plain, and offsets from lines and columns."""

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Offset of characters that Python never sees."""


class Source:
    """A text with universal line breaks, and the way from the original characters to it."""

    def __init__(self, original: str) -> None:
        """Drop a leading byte-order mark; turn `\\r\\n` and `\\r` into `\\n`, as Python does."""
        start = int(original.startswith("\ufeff"))
        self.text = original[start:].replace("\r\n", "\n").replace("\r", "\n")
        codes = characters(original)
        kept = np.ones(len(codes), dtype=bool)
        kept[1:] = (codes[1:] != ord("\n")) | (codes[:-1] != ord("\r"))
        kept[:start] = False
        self.offset_of: NDArray[np.int64] = np.cumsum(kept) - 1
        """For each original character its offset in `text`, or `UNKNOWN`."""
        self._line_starts = [0]
        for offset in np.flatnonzero(characters(self.text) == ord("\n")).tolist():
            self._line_starts.append(offset + 1)
        self._encoded: dict[int, bytes] | None = None if self.text.isascii() else {}

    def line_start(self, row: int) -> int:
        """Offset of the first character of a line, counted from 1."""
        # The tokenizer ends a file without a last line break on a line of its own.
        return self._line_starts[row - 1] if row <= len(self._line_starts) else len(self.text)

    def offset(self, row: int, column: int) -> int:
        """Offset of a character from `tokenize`'s line (from 1) and column (in characters)."""
        return min(self.line_start(row) + column, len(self.text))

    def offset_of_byte(self, row: int, column: int) -> int:
        """Offset of a character from `ast`'s line (from 1) and column (in UTF-8 bytes)."""
        if self._encoded is None:
            return self.offset(row, column)
        if row not in self._encoded:
            line = self.text[self.line_start(row) : self.line_start(row + 1)]
            self._encoded[row] = line.encode()
        return self.offset(row, len(self._encoded[row][:column].decode()))


def characters(text: str) -> NDArray[np.uint32]:
    """The code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
