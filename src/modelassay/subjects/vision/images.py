"""Photographs from files: JPEG and PNG, without another library."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from modelassay.core.errors import CorruptFileError, TooFewTokensError
from modelassay.subjects.vision.jpeg import read_jpeg

ENDINGS = (".jpg", ".jpeg", ".png")
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # a PNG's colour type -> numbers a pixel
_PNG = b"\x89PNG\r\n\x1a\n"


def image_files(folder: str | Path) -> list[Path]:
    """The images in a folder and those below it, in order of their names.

    Raises:
        TooFewTokensError: if there are none, or no such folder.
    """
    folder = Path(folder).expanduser()
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        what = "none" if folder.is_dir() else "no such folder"
        raise TooFewTokensError(
            "A folder of images must hold JPEG or PNG files, itself or in folders below it; got "
            f"{what} at {str(folder)!r}. Name another."
        )
    return found


def read_image(path: str | Path) -> Float[Tensor, "3 h w"]:
    """An image in 0 … 1; grey ones have three equal channels, transparency is laid over white.

    Raises:
        CorruptFileError: if the file is damaged or of a kind that is not read.
        FileNotFoundError: if there is none.
    """
    path = Path(path)
    data = path.read_bytes()
    return read_png(data, path.name) if data[:8] == _PNG else read_jpeg(data, path.name)


def read_images(
    folder: str | Path, size: tuple[int, int] | None = None
) -> Iterator[tuple[Path, Float[Tensor, "3 h w"]]]:
    """Images of a folder one after another, so that a set may be larger than the memory.

    Args:
        folder: looked through with all folders below it.
        size: height and width: the short side is resized (with antialiasing) to fit, and the
            middle cut out; None leaves images as they are.
    """
    for path in image_files(folder):
        image = read_image(path)
        yield path, image if size is None else fitted(image, size)


def read_png(data: bytes, name: str = "the file") -> Float[Tensor, "3 h w"]:
    """A PNG file of 8 bits, not interlaced, grey or RGB, with or without alpha.

    Raises:
        CorruptFileError: if it is damaged or of another kind.
    """
    try:
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
        if depth != 8 or colour not in _CHANNELS or interlaced:
            raise CorruptFileError(
                f"{name} must be a PNG of 8 bits, grey or RGB, not interlaced; got depth {depth}, "
                f"colour type {colour}, interlacing {interlaced}. Save it anew as RGB."
            )
        channels = _CHANNELS[colour]
        lines = np.frombuffer(zlib.decompress(b"".join(_data(data))), np.uint8)
        pixels = _unfiltered(lines.reshape(height, 1 + width * channels), channels)
    except (struct.error, zlib.error, IndexError, StopIteration) as error:
        raise _damaged(name) from error
    except ValueError as error:
        if isinstance(error, CorruptFileError):
            raise
        raise _damaged(name) from error
    image = torch.from_numpy(pixels.reshape(height, width, channels)).permute(2, 0, 1) / 255
    if channels in (2, 4):
        alpha = image[-1:]
        image = image[:-1] * alpha + (1 - alpha)
    return image.expand(3, -1, -1).contiguous()


def _damaged(name: str) -> CorruptFileError:
    return CorruptFileError(
        f"{name} must be a whole PNG file; got one that breaks off or breaks its rules. "
        "Fetch it again."
    )


def _data(data: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += 12 + length


def _unfiltered(lines: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Undo the filter of each row; modulo 256, as bytes do by themselves."""
    rows = np.zeros((len(lines) + 1, lines.shape[1] - 1 + channels), np.uint8)
    for number, line in enumerate(lines):
        above, row, kind = rows[number], rows[number + 1], int(line[0])
        row[channels:] = line[1:]
        if kind == 2:
            row[channels:] += above[channels:]
        elif kind == 1:
            summed = row[channels:].reshape(-1, channels)
            row[channels:] = np.cumsum(summed, axis=0, dtype=np.uint8).reshape(-1)
        elif kind in (3, 4):
            _predict(row, above, channels, average=kind == 3)
        elif kind:
            raise ValueError("no such filter")
    return rows[1:, channels:]


def _predict(
    row: NDArray[np.uint8], above: NDArray[np.uint8], channels: int, *, average: bool
) -> None:
    """Filters that look at what was just decoded: one byte after another."""
    left_row, up_row = row.tolist(), above.tolist()
    for index in range(channels, len(left_row)):
        left, up, corner = left_row[index - channels], up_row[index], up_row[index - channels]
        if average:
            guess = (left + up) // 2
        else:
            # Paeth: whichever neighbour is nearest to left + up - corner.
            near = left + up - corner
            guess = min((left, up, corner), key=lambda value: abs(near - value))
        left_row[index] = (left_row[index] + guess) & 255
    row[:] = left_row


def fitted(image: Float[Tensor, "3 h w"], size: tuple[int, int]) -> Float[Tensor, "3 _h _w"]:
    """An image whose short side is resized (with antialiasing) to fit, and the middle cut out."""
    height, width = image.shape[1:]
    factor = max(size[0] / height, size[1] / width)
    scaled = (max(size[0], round(height * factor)), max(size[1], round(width * factor)))
    if scaled != (height, width):
        image = F.interpolate(
            image[None], scaled, mode="bilinear", antialias=True, align_corners=False
        )[0].clamp(0, 1)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]]
