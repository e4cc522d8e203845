"""Many arrays in one short text that a page can carry and a browser can read without a network."""

import base64
import zlib

import numpy as np

_HALF_SMALLEST, _HALF_LARGEST = 6.2e-5, 6.5e4  # normal numbers of float16, three digits each


class Pack:
    """Collects arrays, and deflates them together into base64.

    `add` returns a description `[offset in bytes, length, type]` that the page's script turns
    back into a typed array. Offsets are multiples of four, as typed arrays ask.
    """

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, array: np.ndarray) -> list[int | str]:
        """Store an array as it is: f2, f4, u1, u2, u4 or i4."""
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        payload = little.tobytes()
        description: list[int | str] = [self._size, int(little.size), array.dtype.str[1:]]
        padding = -len(payload) % 4
        self._chunks.append(payload + b"\0" * padding)
        self._size += len(payload) + padding
        return description

    def counts(self, array: np.ndarray) -> list[int | str]:
        """Store whole numbers in the narrowest unsigned type that holds them."""
        largest = int(array.max(initial=0))
        if int(array.min(initial=0)) < 0:
            return self.add(array.astype(np.int32))
        dtype = np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32
        return self.add(array.astype(dtype))

    def exact(self, array: np.ndarray) -> list[int | str]:
        """Store numbers that are printed, in single precision."""
        return self.add(array.astype(np.float32))

    def rough(self, array: np.ndarray) -> list[int | str]:
        """Store numbers that three digits are enough for, in half precision if it reaches them."""
        sizes = np.abs(array[np.isfinite(array) & (array != 0)])
        fits = not sizes.size or (sizes.min() > _HALF_SMALLEST and sizes.max() < _HALF_LARGEST)
        return self.add(array.astype(np.float16 if fits else np.float32))

    def base64(self) -> str:
        """Everything added so far, deflated."""
        return base64.b64encode(zlib.compress(b"".join(self._chunks), 9)).decode("ascii")
