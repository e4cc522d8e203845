"""Images as PNG files, without another library."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from modelassay.core.errors import ShapeError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}  # channels -> grey, RGB, RGB with alpha


def to_png(image: Float[Tensor, "channel h w"]) -> bytes:
    """An image of 1, 3 or 4 channels in 0 … 1 as the bytes of a PNG file, 8 bits a channel.

    Raises:
        ShapeError: for any other number of channels.
    """
    if image.ndim != 3 or image.shape[0] not in _COLOUR_TYPES:
        raise ShapeError(
            f"A picture must be [1, 3 or 4 channels, h, w]; got {list(image.shape)}. "
            "Pass one image, colours first."
        )
    channels, height, width = image.shape
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = levels.permute(1, 2, 0).contiguous().cpu().numpy()
    rows = pixels.reshape(height, width * channels)
    # Each row begins with its filter; 1 stores the difference from the pixel on the left.
    filtered = rows.copy()
    filtered[:, channels:] = rows[:, channels:] - rows[:, :-channels]
    lines = np.concatenate([np.ones((height, 1), np.uint8), filtered], 1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join(
        [
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            _chunk(b"IEND", b""),
        ]
    )


def sheet(
    images: Sequence[Float[Tensor, "3 h w"]] | Float[Tensor, "n 3 h w"],
    columns: int,
    gap: int = 4,
) -> Float[Tensor, "3 height width"]:
    """Images of one size side by side on white, row by row."""
    stacked = images if isinstance(images, Tensor) else torch.stack(list(images))
    count, channels, height, width = stacked.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    page = torch.ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for index, image in enumerate(stacked):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        page[:, top : top + height, left : left + width] = image
    return page


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
