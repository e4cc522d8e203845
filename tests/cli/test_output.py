"""Nothing is overwritten by accident."""

from pathlib import Path

import pytest
from modelassay.cli.output import refuse_existing
from modelassay.core.errors import OutputExistsError


def test_an_existing_file_is_refused_with_the_remedy(tmp_path: Path):
    (tmp_path / "page").write_text("mine")
    with pytest.raises(OutputExistsError, match="Pass --force"):
        refuse_existing(tmp_path / "page", force=False)


def test_force_and_a_free_name_are_let_through(tmp_path: Path):
    (tmp_path / "page").write_text("mine")
    refuse_existing(tmp_path / "page", force=True)
    refuse_existing(tmp_path / "other", force=False)
