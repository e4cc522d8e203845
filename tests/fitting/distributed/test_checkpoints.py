"""Checkpoints in four parts, written without processes and read as any number of them would."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modelassay.core.errors import CorruptFileError, ProvenanceError, StorageError
from modelassay.core.files import read_json, sha256_of_file, write_json, write_tensors
from modelassay.fitting.checkpoints import Checkpoint, write_checkpoint
from modelassay.fitting.distributed import checkpoints
from modelassay.fitting.distributed.checkpoints import read_part, write_sharded
from modelassay.fitting.distributed.mesh import ProcessMesh, process_mesh
from modelassay.fitting.distributed.parts import latent_axis
from tests.fitting.distributed.one_part import OnePart

CONFIGURATION = {"batch_tokens": 64, "recipes": {"topk": {"width": 50, "k": 2}}}
WIDTH, D = 50, 3


def whole_state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "TopK 50 (k=2).W_enc": torch.randn(D, WIDTH, generator=generator),
        "TopK 50 (k=2).W_enc.exp_avg": torch.randn(D, WIDTH, generator=generator),
        "TopK 50 (k=2).W_enc.step": torch.tensor(7.0),
        "TopK 50 (k=2).W_dec": torch.randn(WIDTH, D, generator=generator),
        "TopK 50 (k=2).b_dec": torch.randn(D, generator=generator),
        "TopK 50 (k=2).silence": torch.arange(WIDTH) + 2**60,
        "TopK 50 (k=2).dead": torch.arange(WIDTH) % 7 == 0,
        "TopK 50 (k=2).activation.threshold": torch.rand(WIDTH, generator=generator),
    }


def part_of_state(mesh: ProcessMesh) -> dict[str, Tensor]:
    mine = mesh.latents_of(WIDTH)
    parts: dict[str, Tensor] = {}
    for name, tensor in whole_state().items():
        axis = latent_axis(name, tensor.ndim)
        parts[name] = tensor if axis is None else tensor.narrow(axis, mine.start, len(mine))
    return parts


def checkpoint_of(tensors: dict[str, Tensor], step: int = 3) -> Checkpoint:
    return Checkpoint(
        configuration=CONFIGURATION, step=step, tensors=tensors, state={"stream": {"batch": 2**55}}
    )


def write_parts(folder: Path, n_parts: int, step: int = 3) -> None:
    """What `n_parts` processes write, one after the other."""
    reports: list[dict[str, object]] = []
    for part in range(n_parts):
        mesh = OnePart((part, n_parts))
        written = checkpoints._write_part(folder, checkpoint_of(part_of_state(mesh), step), mesh)
        reports.append(json.loads(written))
    assert not checkpoints._write_index(folder, checkpoint_of({}, step), reports)


@pytest.mark.parametrize("n_written", [1, 4])
@pytest.mark.parametrize("n_read", [1, 2, 3, 5])
def test_parts_are_read_by_any_number_of_processes(tmp_path: Path, n_written: int, n_read: int):
    write_parts(tmp_path, n_written)
    for part in range(n_read):
        mesh = OnePart((part, n_read))
        read = read_part(tmp_path, CONFIGURATION, mesh)
        assert read.step == 3
        assert read.state == {"stream": {"batch": 2**55}}
        expected = part_of_state(mesh)
        assert read.tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(read.tensors[name], tensor), name


def test_one_process_reads_dead_latents_as_numbers(tmp_path: Path):
    write_parts(tmp_path, 4)
    read = read_part(tmp_path, CONFIGURATION, None)
    assert read.tensors["TopK 50 (k=2).dead"].tolist() == [0, 7, 14, 21, 28, 35, 42, 49]
    for name, tensor in whole_state().items():
        assert name.endswith("dead") or torch.equal(read.tensors[name], tensor)


def test_parts_of_a_checkpoint_of_one_process(tmp_path: Path):
    state = whole_state() | {"TopK 50 (k=2).dead": torch.tensor([0, 7, 49])}
    write_checkpoint(tmp_path, checkpoint_of(state))
    mesh = OnePart((1, 3))
    read = read_part(tmp_path, CONFIGURATION, mesh)
    for name, tensor in part_of_state(mesh).items():
        if not name.endswith("dead"):
            assert torch.equal(read.tensors[name], tensor), name
    assert read.tensors["TopK 50 (k=2).dead"].tolist() == [0, 7, 49]


def test_files_hold_a_part_each_and_what_is_whole_once(tmp_path: Path):
    write_parts(tmp_path, 4)
    sizes = [file.stat().st_size for file in sorted(tmp_path.glob("*.safetensors"))]
    assert len(sizes) == 4
    index = read_json(tmp_path / "checkpoint.json")
    assert index["tensors"]["TopK 50 (k=2).b_dec"]["parts"] == {
        "step_000000003.part_0_of_4.safetensors": [0, 1]
    }
    assert list(index["tensors"]["TopK 50 (k=2).W_enc"]["parts"].values()) == [
        [0, 13],
        [13, 26],
        [26, 39],
        [39, 50],
    ]


def test_later_checkpoint_replaces_the_earlier_whoever_wrote_it(tmp_path: Path):
    write_checkpoint(tmp_path, checkpoint_of(whole_state(), step=1))
    write_parts(tmp_path, 2, step=2)
    write_parts(tmp_path, 4, step=5)
    assert read_part(tmp_path, CONFIGURATION, None).step == 5
    assert len(list(tmp_path.glob("*.safetensors"))) == 4


def test_a_lost_part_is_named_with_what_it_held(tmp_path: Path):
    write_parts(tmp_path, 4)
    (tmp_path / "step_000000003.part_2_of_4.safetensors").unlink()
    message = (
        r"step_000000003\.part_2_of_4\.safetensors', which holds a part of 'TopK 50 \(k=2\)\.W_enc'"
        r", must have the SHA-256 [0-9a-f]{64}; got no such file"
    )
    with pytest.raises(CorruptFileError, match=message):
        read_part(tmp_path, CONFIGURATION, None)


def test_only_the_parts_that_are_needed_must_be_there(tmp_path: Path):
    write_parts(tmp_path, 4)
    (tmp_path / "step_000000003.part_3_of_4.safetensors").unlink()
    assert read_part(tmp_path, CONFIGURATION, OnePart((0, 2))).step == 3
    with pytest.raises(CorruptFileError, match="no such file"):
        read_part(tmp_path, CONFIGURATION, OnePart((1, 2)))


@pytest.mark.parametrize("how", ["truncated", "altered"])
def test_a_damaged_part_is_refused(tmp_path: Path, how: str):
    write_parts(tmp_path, 4)
    file = tmp_path / "step_000000003.part_1_of_4.safetensors"
    content = bytearray(file.read_bytes())
    if how == "truncated":
        content = content[:-8]
    else:
        content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"must have the SHA-256 \w+; got the SHA-256 \w+"):
        read_part(tmp_path, CONFIGURATION, None)


def test_a_part_of_another_shape_is_named_with_both_shapes(tmp_path: Path):
    write_parts(tmp_path, 4)
    file = tmp_path / "step_000000003.part_1_of_4.safetensors"
    parts = part_of_state(OnePart((1, 4)))
    write_tensors(file, parts | {"TopK 50 (k=2).W_dec": torch.zeros(12, D)})
    index = read_json(tmp_path / "checkpoint.json")
    index["files"][file.name] = sha256_of_file(file)
    write_json(tmp_path / "checkpoint.json", index)
    with pytest.raises(CorruptFileError, match=r"the shape \[13, 3\]; got \[12, 3\]"):
        read_part(tmp_path, CONFIGURATION, None)


def test_a_part_without_a_tensor_is_named(tmp_path: Path):
    write_parts(tmp_path, 2)
    file = tmp_path / "step_000000003.part_1_of_2.safetensors"
    write_tensors(file, {"other": torch.zeros(1)})
    index = read_json(tmp_path / "checkpoint.json")
    index["files"][file.name] = sha256_of_file(file)
    write_json(tmp_path / "checkpoint.json", index)
    with pytest.raises(CorruptFileError, match=r"must hold the tensor 'TopK 50 \(k=2\)\."):
        read_part(tmp_path, CONFIGURATION, None)


def test_an_index_that_lacks_a_part_is_refused(tmp_path: Path):
    write_parts(tmp_path, 4)
    index = read_json(tmp_path / "checkpoint.json")
    del index["tensors"]["TopK 50 (k=2).W_dec"]["parts"]["step_000000003.part_2_of_4.safetensors"]
    write_json(tmp_path / "checkpoint.json", index)
    with pytest.raises(CorruptFileError, match="hold latents 0 to 49; got them up to 25"):
        read_part(tmp_path, CONFIGURATION, None)


@pytest.mark.parametrize("field", ["configuration", "step", "files", "tensors", "state"])
def test_an_index_that_lacks_a_field_is_refused_by_name(tmp_path: Path, field: str):
    write_parts(tmp_path, 2)
    index = read_json(tmp_path / "checkpoint.json")
    del index[field]
    write_json(tmp_path / "checkpoint.json", index)
    message = rf"checkpoint\.json' must have the fields configuration.*; got no '{field}'\. Restore"
    with pytest.raises(CorruptFileError, match=message):
        read_part(tmp_path, CONFIGURATION, OnePart((0, 2)))


@pytest.mark.parametrize("field", ["shape", "axis", "parts"])
def test_a_tensor_of_the_index_that_lacks_a_field_is_named(tmp_path: Path, field: str):
    write_parts(tmp_path, 2)
    index = read_json(tmp_path / "checkpoint.json")
    del index["tensors"]["TopK 50 (k=2).W_dec"][field]
    write_json(tmp_path / "checkpoint.json", index)
    message = rf"'TopK 50 \(k=2\)\.W_dec' in '.*checkpoint\.json' must have .*; got no '{field}'"
    with pytest.raises(CorruptFileError, match=message):
        read_part(tmp_path, CONFIGURATION, None)


def test_an_index_without_a_checksum_or_a_place_is_refused_by_name(tmp_path: Path):
    write_parts(tmp_path, 2)
    whole = read_json(tmp_path / "checkpoint.json")
    index = json.loads(json.dumps(whole))
    del index["files"]["step_000000003.part_1_of_2.safetensors"]
    write_json(tmp_path / "checkpoint.json", index)
    with pytest.raises(CorruptFileError, match=r"SHA-256 of every file; got none of 'step_.*_1_of"):
        read_part(tmp_path, CONFIGURATION, None)
    index = json.loads(json.dumps(whole))
    index["tensors"]["TopK 50 (k=2).b_dec"]["parts"] = {}
    write_json(tmp_path / "checkpoint.json", index)
    with pytest.raises(
        CorruptFileError, match=r"which file holds 'TopK 50 \(k=2\)\.b_dec'; got none"
    ):
        read_part(tmp_path, CONFIGURATION, None)


def test_other_configuration_is_refused_by_field(tmp_path: Path):
    write_parts(tmp_path, 4)
    changed = CONFIGURATION | {"recipes": {"topk": {"width": 50, "k": 4}}}
    with pytest.raises(ProvenanceError, match=r"recipes\.topk\.k was 2 in .* now is 4"):
        read_part(tmp_path, changed, OnePart((0, 2)))


def test_a_later_format_is_refused(tmp_path: Path):
    write_parts(tmp_path, 4)
    index = read_json(tmp_path / "checkpoint.json")
    write_json(tmp_path / "checkpoint.json", index | {"format_version": 3})
    with pytest.raises(CorruptFileError, match="got format 3"):
        read_part(tmp_path, CONFIGURATION, None)


def test_a_process_that_cannot_write_leaves_the_earlier_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "0")
    with process_mesh() as mesh:
        write_sharded(tmp_path, checkpoint_of(whole_state(), step=1), mesh)

        def full(path: Path, content: object) -> None:
            raise StorageError(f"{str(path)!r} must be writable; got 'No space left on device'.")

        for function in ("write_tensors", "write_json"):
            with monkeypatch.context() as patch:
                patch.setattr(checkpoints, function, full)
                with pytest.raises(StorageError, match=r"from process 0: .* must be writable"):
                    write_sharded(tmp_path, checkpoint_of(whole_state(), step=2), mesh)
            assert read_part(tmp_path, CONFIGURATION, None).step == 1
