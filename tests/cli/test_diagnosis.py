"""What the doctor sees, on healthy and on damaged installations."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from modelassay.cli.diagnosis import BUNDLED, bundled_state, device_state, free_bytes
from modelassay.cli.main import app
from modelassay.cli.schemas import DoctorResult
from tools.bundled.checksums import write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like the bundled models', with its checksums."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tiny" / "config.json").write_text("{}")
    write_checksums(tmp_path)
    return tmp_path


def test_an_untouched_folder_is_intact(folder: Path):
    assert bundled_state(folder) == "intact"


def test_one_altered_byte_is_seen(folder: Path):
    (folder / "tiny" / "model.safetensors").write_bytes(b"weightz")
    assert (
        bundled_state(folder) == "damaged: tiny/model.safetensors differs from what was published"
    )


def test_a_missing_file_is_named(folder: Path):
    (folder / "tiny" / "config.json").unlink()
    assert bundled_state(folder) == "damaged: tiny/config.json is missing"


def test_missing_checksums_are_no_clean_bill(tmp_path: Path):
    assert bundled_state(tmp_path) == "damaged: SHA256SUMS is missing"


def test_the_published_model_is_intact():
    assert bundled_state(BUNDLED) == "intact"


def test_every_weight_file_has_a_checksum():
    listed = (BUNDLED / "SHA256SUMS").read_text("utf-8")
    for path in BUNDLED.rglob("*.safetensors"):
        assert path.relative_to(BUNDLED).as_posix() in listed


def test_the_cpu_computes():
    assert device_state("cpu", seed=0) == "intact"


def test_a_device_that_does_not_exist_is_unusable_with_the_reason():
    assert device_state("warp", seed=0).startswith("unusable: ")


def test_free_space_of_a_folder_that_does_not_exist_yet_is_its_parents(tmp_path: Path):
    assert free_bytes(tmp_path / "a" / "b") == pytest.approx(free_bytes(tmp_path), rel=0.01)


def test_the_json_is_the_documented_one_and_alone_on_stdout():
    result = CliRunner().invoke(app, ["doctor", "--json"])
    content = json.loads(result.stdout)
    TypeAdapter(DoctorResult, config=None).validate_python(content, strict=True, extra="forbid")
    assert content["healthy"] is True
    assert result.exit_code == 0


def test_a_device_that_cannot_compute_is_exit_code_1():
    result = CliRunner().invoke(app, ["doctor", "--device", "warp"])
    assert result.exit_code == 1
    assert "unusable" in result.stdout
