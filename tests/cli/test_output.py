"""Nothing is overwritten by accident."""

from pathlib import Path

import pytest

from modelassay.cli.output import claim_folder, refuse_existing
from modelassay.core.errors import OutputExistsError


def test_an_existing_file_is_refused_with_the_remedy(tmp_path: Path):
    (tmp_path / "page").write_text("mine")
    with pytest.raises(OutputExistsError, match="Pass --force"):
        refuse_existing(tmp_path / "page", force=False)


def test_force_and_a_free_name_are_let_through(tmp_path: Path):
    (tmp_path / "page").write_text("mine")
    refuse_existing(tmp_path / "page", force=True)
    refuse_existing(tmp_path / "other", force=False)


def test_force_removes_earlier_results(tmp_path: Path):
    (tmp_path / "shard-0.safetensors").write_text("old")
    (tmp_path / "checkpoint").mkdir()
    claim_folder(tmp_path, ours=("shard-*", "checkpoint"), force=True, resume=False)
    assert list(tmp_path.iterdir()) == []


def test_force_spares_files_of_others_and_then_removes_nothing(tmp_path: Path):
    (tmp_path / "shard-0.safetensors").write_text("old")
    (tmp_path / "my notes").write_text("mine")
    with pytest.raises(OutputExistsError, match="got 'my notes'"):
        claim_folder(tmp_path, ours=("shard-*",), force=True, resume=False)
    assert {path.name for path in tmp_path.iterdir()} == {"my notes", "shard-0.safetensors"}


def test_resume_keeps_everything(tmp_path: Path):
    (tmp_path / "shard-0.safetensors").write_text("old")
    claim_folder(tmp_path, ours=("shard-*",), force=False, resume=True)
    assert (tmp_path / "shard-0.safetensors").read_text() == "old"


def test_without_either_a_full_folder_is_refused(tmp_path: Path):
    (tmp_path / "shard-0.safetensors").write_text("old")
    with pytest.raises(OutputExistsError, match="Pass --force"):
        claim_folder(tmp_path, ours=("shard-*",), force=False, resume=False)
