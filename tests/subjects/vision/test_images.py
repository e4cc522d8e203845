"""Photographs from files, against encoders written here and a classifier's known accuracy."""

import csv
import struct
import zlib

import numpy as np
import pytest
import torch

from modelassay.core.errors import CorruptFileError, TooFewTokensError
from modelassay.subjects.vision.images import image_files, read_image, read_images, read_png
from modelassay.subjects.vision.jpeg import read_jpeg
from modelassay.subjects.vision.squeezenet import load_squeezenet

KINDS = {0: 1, 2: 3, 4: 2, 6: 4}


def png(pixels: np.ndarray, colour: int, kind: int, depth: int = 8) -> bytes:
    """A PNG whose rows all have one filter, from the format's definition."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, -1).astype(int)
    lines = b""
    for y in range(height):
        line = [kind]
        for i in range(width * channels):
            left = rows[y, i - channels] if i >= channels else 0
            up = rows[y - 1, i] if y else 0
            corner = rows[y - 1, i - channels] if y and i >= channels else 0
            near = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(near - value))
            guess = (0, left, up, (left + up) // 2, paeth)[kind]
            line.append((rows[y, i] - guess) % 256)
        lines += bytes(line)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + b"\0\0\0\0"

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(lines)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", body[:9]), chunk(b"IDAT", body[9:]))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("colour", KINDS)
def test_every_filter_and_colour_of_a_png(kind, colour):
    g = np.random.default_rng(kind)
    pixels = g.integers(0, 256, (6, 7, KINDS[colour]), dtype=np.uint8)
    found = read_png(png(pixels, colour, kind))
    values = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    if colour in (4, 6):
        values = values[:-1] * values[-1:] + 1 - values[-1:]
    assert torch.allclose(found, values.expand(3, -1, -1), atol=1e-6)


def test_photographs_are_classified_as_well_as_is_known(shared_data):
    folder = shared_data / "restricted_imagenet_sample"
    with (folder / "labels.csv").open() as file:
        labels = {
            row["file"].rpartition("/")[2]: int(row["class_index"]) for row in csv.DictReader(file)
        }
    found = list(read_images(folder / "images"))
    images = torch.stack([image for _, image in found])
    truth = torch.tensor([labels[path.name] for path, _ in found])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        logits = load_squeezenet(shared_data / "squeezenet1_0")((images - mean) / deviation)
    right = logits.topk(5).indices == truth[:, None]
    assert float(right[:, 0].float().mean()) == pytest.approx(0.465, abs=0.011)
    assert float(right.any(1).float().mean()) == pytest.approx(0.750, abs=0.011)


def test_a_smooth_photograph_survives_cutting(tmp_path):
    ramp = np.linspace(0, 255, 40).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (20, 40, 3))
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "ramp.PNG").write_bytes(png(pixels, 2, 1))
    ((path, image),) = read_images(tmp_path, (10, 10))
    assert path.name == "ramp.PNG"
    assert image.shape == (3, 10, 10)
    assert float(image.mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.equal(read_image(path)[0, 0], torch.from_numpy(ramp.copy()) / 255)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(CorruptFileError, match=r"must begin as a JPEG file does; got b'GIF8'"):
        read_jpeg(b"GIF89a", "a.gif")
    with pytest.raises(CorruptFileError, match="2 is progressive"):
        read_jpeg(b"\xff\xd8\xff\xc2\x00\x0b" + bytes(9), "a.jpg")
    with pytest.raises(CorruptFileError, match=r"a\.jpg must be a whole JPEG file"):
        read_jpeg(b"\xff\xd8\xff\xdb\x00\x43", "a.jpg")
    pixels = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(CorruptFileError, match="got depth 16"):
        read_png(png(pixels, 2, 0, depth=16), "a.png")
    with pytest.raises(CorruptFileError, match=r"a\.png must be a whole PNG file"):
        read_png(png(pixels, 2, 0)[:45], "a.png")
    with pytest.raises(TooFewTokensError, match="got none at"):
        image_files(tmp_path)


def test_a_truncated_photograph_is_refused(shared_data):
    path = next((shared_data / "restricted_imagenet_sample" / "images").glob("*.*"))
    data = path.read_bytes()
    assert read_jpeg(data).shape == (3, 128, 128)
    with pytest.raises(CorruptFileError, match="breaks off"):
        read_jpeg(data[: len(data) // 2])
