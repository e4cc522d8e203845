import json
from pathlib import Path

import pytest
import torch

from modelassay.core.errors import CorruptFileError, ProvenanceError
from modelassay.fitting import checkpoints
from modelassay.fitting.checkpoints import (
    INDEX,
    Checkpoint,
    has_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

CONFIGURATION = {"batch_tokens": 64, "recipes": {"topk": {"width": 8, "k": 2}}, "rate": 1 / 3}


def checkpoint(step: int = 3) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        configuration=CONFIGURATION,
        step=step,
        tensors={"w": torch.randn(5, generator=generator), "n": torch.tensor(2**60 + 1)},
        state={"position": 2**55 + 1, "order": [1, 2]},
    )


def test_reads_back_what_was_written(tmp_path: Path):
    assert not has_checkpoint(tmp_path)
    written = checkpoint()
    write_checkpoint(tmp_path, written)
    assert has_checkpoint(tmp_path)
    read = read_checkpoint(tmp_path, CONFIGURATION)
    assert read.step == 3
    assert read.state == written.state
    for name, tensor in written.tensors.items():
        assert torch.equal(read.tensors[name], tensor)


def test_later_checkpoint_replaces_the_earlier(tmp_path: Path):
    write_checkpoint(tmp_path, checkpoint(3))
    write_checkpoint(tmp_path, checkpoint(9))
    assert read_checkpoint(tmp_path, CONFIGURATION).step == 9
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_kill_between_tensors_and_index_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_checkpoint(tmp_path, checkpoint(3))

    def killed(path: object, content: object) -> None:
        raise SystemExit

    monkeypatch.setattr(checkpoints, "write_json", killed)
    with pytest.raises(SystemExit):
        write_checkpoint(tmp_path, checkpoint(9))
    read = read_checkpoint(tmp_path, CONFIGURATION)
    assert read.step == 3
    assert torch.equal(read.tensors["w"], checkpoint(3).tensors["w"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (CONFIGURATION | {"batch_tokens": 32}, "batch_tokens was 64 in .* now is 32"),
        (
            CONFIGURATION | {"recipes": {"topk": {"width": 8, "k": 4}}},
            r"recipes\.topk\.k was 2 in .* now is 4",
        ),
        (CONFIGURATION | {"extra": 1}, "extra was None in .* now is 1"),
        ({"batch_tokens": 64}, "recipes was .* now is None"),
    ],
)
def test_other_configuration_is_refused_by_field(
    tmp_path: Path, changed: dict[str, object], message: str
):
    write_checkpoint(tmp_path, checkpoint())
    with pytest.raises(ProvenanceError, match=message):
        read_checkpoint(tmp_path, changed)


@pytest.mark.parametrize("damage", ["altered", "truncated", "lost"])
def test_damaged_tensors_are_refused_by_file_with_what_was_expected(tmp_path: Path, damage: str):
    write_checkpoint(tmp_path, checkpoint())
    (file,) = tmp_path.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    if damage == "altered":
        content[-1] ^= 1
    file.write_bytes(content[:-8] if damage == "truncated" else content)
    if damage == "lost":
        file.unlink()
    got = "no such file" if damage == "lost" else r"the SHA-256 \w{64}"
    message = rf"step_000000003\.safetensors', .* must have the SHA-256 \w{{64}}; got {got}\."
    with pytest.raises(CorruptFileError, match=message):
        read_checkpoint(tmp_path, CONFIGURATION)


def test_an_index_without_a_field_is_refused_by_name(tmp_path: Path):
    write_checkpoint(tmp_path, checkpoint())
    index = json.loads((tmp_path / INDEX).read_text())
    del index["state"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match=r"checkpoint\.json' must have .* got no 'state'"):
        read_checkpoint(tmp_path, CONFIGURATION)
    (tmp_path / INDEX).write_text(json.dumps(index)[:-30])
    with pytest.raises(CorruptFileError, match=r"checkpoint\.json' must be JSON; got an error at"):
        read_checkpoint(tmp_path, CONFIGURATION)


def test_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    write_checkpoint(tmp_path, checkpoint())
    monkeypatch.undo()
    with pytest.raises(CorruptFileError, match="format 1; got format 2"):
        read_checkpoint(tmp_path, CONFIGURATION)
