"""JPEG files (ITU T.81), baseline and extended sequential with Huffman codes, 8 bits, no library.

Image sets for dataset examples are JPEG nearly always, and this is all of the format that they use.
Some 20 ms for an image of 128 x 128. Progressive and arithmetic-coded files are refused.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from modelassay.core.errors import CorruptFileError


def _zigzag() -> list[int]:
    """The order of coefficients in a file: along diagonals, every second one upwards."""
    places: list[int] = []
    for diagonal in range(15):
        rows = [row for row in range(8) if 0 <= diagonal - row < 8]
        rows = rows if diagonal % 2 else rows[::-1]
        places += [8 * row + diagonal - row for row in rows]
    return places


_ZIGZAG = np.array(_zigzag())
_COSINE = np.array(
    [
        [(0.125**0.5 if u == 0 else 0.5) * np.cos((2 * x + 1) * u * np.pi / 16) for u in range(8)]
        for x in range(8)
    ]
)
_LONGEST = 16  # bits of a Huffman code

HuffmanTable = list[tuple[int, int]]
"""The next 16 bits -> length of the code they begin with, and its symbol; length 0: no code."""


@dataclass(slots=True)
class _Component:
    identifier: int
    across: int
    """Blocks side by side in one minimum coded unit."""
    down: int
    quantisation: int
    dc: int = 0
    ac: int = 0
    blocks: dict[tuple[int, int], list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class _File:
    quantisation: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    dc: dict[int, HuffmanTable] = field(default_factory=dict)
    ac: dict[int, HuffmanTable] = field(default_factory=dict)
    components: list[_Component] = field(default_factory=list)
    height: int = 0
    width: int = 0
    restart: int = 0
    """Minimum coded units between two restarts; 0: none."""


def read_jpeg(data: bytes, name: str = "the file") -> Float[Tensor, "3 h w"]:
    """The image in 0 … 1; grey files give three equal channels.

    Args:
        data: the bytes of a file.
        name: for messages.

    Raises:
        CorruptFileError: if it is damaged, progressive, or another format.
    """
    try:
        return _image(_parse(data, name))
    except (IndexError, KeyError, struct.error, StopIteration, ValueError) as error:
        if isinstance(error, CorruptFileError):
            raise
        raise CorruptFileError(
            f"{name} must be a whole JPEG file; got one that breaks off or breaks its rules "
            f"({type(error).__name__}). Fetch it again."
        ) from error


def _parse(data: bytes, name: str) -> _File:
    if data[:2] != b"\xff\xd8":
        raise CorruptFileError(
            f"{name} must begin as a JPEG file does; got {data[:4]!r}. Convert it to JPEG or PNG."
        )
    file, place = _File(), 2
    while True:
        marker = data[place + 1]
        length = struct.unpack(">H", data[place + 2 : place + 4])[0]
        segment = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == 0xDB:
            _read_quantisation(segment, file)
        elif marker == 0xC4:
            _read_huffman(segment, file)
        elif marker in (0xC0, 0xC1):
            _read_frame(segment, file)
        elif marker == 0xDD:
            file.restart = struct.unpack(">H", segment[:2])[0]
        elif marker == 0xDA:
            _read_scan(segment, data[place:], file)
            return file
        elif 0xC2 <= marker <= 0xCF and marker != 0xCC:
            raise CorruptFileError(
                f"{name} must be a sequential Huffman-coded JPEG; got kind {marker - 0xC0} "
                "(2 is progressive). Convert it, for example with `jpegtran` or to PNG."
            )


def _read_quantisation(segment: bytes, file: _File) -> None:
    while segment:
        wide, index = segment[0] >> 4, segment[0] & 15
        size = 128 if wide else 64
        numbers = np.frombuffer(segment[1 : 1 + size], dtype=">u2" if wide else "u1")
        file.quantisation[index] = numbers.astype(np.float64)
        segment = segment[1 + size :]


def _read_huffman(segment: bytes, file: _File) -> None:
    while segment:
        kind, index = segment[0] >> 4, segment[0] & 15
        counts, symbols = segment[1:17], segment[17 : 17 + sum(segment[1:17])]
        table: HuffmanTable = [(0, 0)] * (1 << _LONGEST)
        code, used = 0, 0
        for length, count in enumerate(counts, start=1):
            for symbol in symbols[used : used + count]:
                first, span = code << (_LONGEST - length), 1 << (_LONGEST - length)
                table[first : first + span] = [(length, symbol)] * span
                code += 1
            used += count
            code <<= 1
        (file.ac if kind else file.dc)[index] = table
        segment = segment[17 + used :]


def _read_frame(segment: bytes, file: _File) -> None:
    file.height, file.width, count = struct.unpack(">HHB", segment[1:6])
    for position in range(6, 6 + 3 * count, 3):
        identifier, sampling, table = segment[position : position + 3]
        file.components.append(_Component(identifier, sampling >> 4, sampling & 15, table))


def _read_scan(header: bytes, data: bytes, file: _File) -> None:
    if header[0] != len(file.components):
        raise CorruptFileError(
            f"A JPEG file must hold its colours in one scan; got {header[0]} of "
            f"{len(file.components)} in the first. Convert it, for example with `jpegtran`."
        )
    by_name = {component.identifier: component for component in file.components}
    for position in range(1, 1 + 2 * header[0], 2):
        component = by_name[header[position]]
        component.dc, component.ac = header[position + 1] >> 4, header[position + 1] & 15
    if header[0] == 1:
        file.components[0].across = file.components[0].down = 1
    widest = max(component.across for component in file.components)
    tallest = max(component.down for component in file.components)
    columns = -(-file.width // (8 * widest))
    units = columns * -(-file.height // (8 * tallest))
    order = [
        (number, y, x)
        for number, component in enumerate(file.components)
        for y in range(component.down)
        for x in range(component.across)
    ]
    tables = [
        (number, file.dc[file.components[number].dc], file.ac[file.components[number].ac])
        for number, _, _ in order
    ]
    stretch = file.restart or units
    intervals = _intervals(data)
    for begin in range(0, units, stretch):
        found = iter(_decoded(next(intervals), tables, min(stretch, units - begin)))
        for unit in range(begin, min(begin + stretch, units)):
            row, column = divmod(unit, columns)
            for number, y, x in order:
                component = file.components[number]
                place = (row * component.down + y, column * component.across + x)
                component.blocks[place] = next(found)


def _intervals(data: bytes) -> Iterator[bytes]:
    """The coded data between restarts, without stuffed bytes, up to the next marker."""
    begin = place = 0
    while True:
        place = data.find(b"\xff", place)
        if place < 0:
            yield data[begin:].replace(b"\xff\x00", b"\xff")
            return
        marker = data[place + 1]
        if marker and marker != 0xFF:
            yield data[begin:place].replace(b"\xff\x00", b"\xff")
            if not 0xD0 <= marker <= 0xD7:
                return
            begin = place + 2
        place += 2 if marker != 0xFF else 1


def _decoded(
    data: bytes, tables: list[tuple[int, HuffmanTable, HuffmanTable]], units: int
) -> list[list[int]]:
    """The blocks of a stretch of coded data, 64 coefficients each in the file's order.

    One long loop without calls: it runs for every symbol of the file.
    """
    blocks: list[list[int]] = []
    before = dict.fromkeys((number for number, _, _ in tables), 0)
    bit, limit = 0, 8 * len(data)
    data += bytes(8)  # so that the last symbols have bits to look ahead at
    for _ in range(units):
        for number, dc, ac in tables:
            block, position, table = [0] * 64, 0, dc
            while position < 64:
                start = bit >> 3
                window = int.from_bytes(data[start : start + 6])
                length, symbol = table[(window >> (32 - (bit & 7))) & 0xFFFF]
                if length == 0 or bit > limit:
                    raise ValueError("no such code")
                run, size = (symbol >> 4, symbol & 15) if position else (0, symbol)
                if position and size == 0 and run != 15:
                    bit += length
                    break
                value = 0
                if size:
                    value = (window >> (48 - (bit & 7) - length - size)) & ((1 << size) - 1)
                    # A number that begins with 0 is negative.
                    value = value if value >> (size - 1) else value - (1 << size) + 1
                bit += length + size
                position += run
                block[position] = value
                position, table = position + 1, ac
            block[0] += before[number]
            before[number] = block[0]
            blocks.append(block)
    return blocks


def _image(file: _File) -> Tensor:
    widest = max(component.across for component in file.components)
    tallest = max(component.down for component in file.components)
    planes = [_plane(file, component, tallest, widest) for component in file.components]
    if len(planes) == 1:
        return (planes[0] / 255).clamp(0, 1).expand(3, -1, -1).contiguous()
    luma, blue, red = planes[0], planes[1] - 128, planes[2] - 128
    # JFIF: the colours of ITU-R BT.601 in their full range.
    channels = (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue)
    # A decoder's result is bytes: what stands in them is what models were trained on.
    return torch.stack(channels).round().clamp(0, 255) / 255


def _plane(file: _File, component: _Component, tallest: int, widest: int) -> Tensor:
    rows = 1 + max(row for row, _ in component.blocks)
    columns = 1 + max(column for _, column in component.blocks)
    coded = np.array([component.blocks[y, x] for y in range(rows) for x in range(columns)])
    natural = np.zeros((len(coded), 64))
    natural[:, _ZIGZAG] = coded * file.quantisation[component.quantisation]
    pixels = _COSINE @ natural.reshape(-1, 8, 8) @ _COSINE.T + 128
    plane = pixels.reshape(rows, columns, 8, 8).swapaxes(1, 2).reshape(8 * rows, 8 * columns)
    height = -(-file.height * component.down // tallest)
    width = -(-file.width * component.across // widest)
    found = torch.from_numpy(plane[:height, :width].clip(0, 255)).float()
    if (height, width) != (file.height, file.width):
        size = (file.height, file.width)
        found = F.interpolate(found[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    return found
