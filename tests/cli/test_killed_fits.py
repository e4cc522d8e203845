"""`modelassay fit`, killed or interrupted at many moments, and gone on with: the same bits."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from modelassay.cli.main import app

# 30 steps of two learners, with a checkpoint at 25 and at 30, are these calls: 0 and 1 open the
# log; 2 to 51 are the first 25 steps; 52 to 55 write and rename a checkpoint's tensors and its
# index; 56 to 65 are steps; 66 to 69 write the second, 70 removes the first; 71 to 78 save what
# was learned.
LEFT = {
    "SIGKILL-21": None,
    "SIGKILL-55": None,
    "SIGKILL-61": 25,
    "SIGKILL-67": 25,
    "SIGKILL-70": 30,
    "SIGKILL-74": 30,
    "SIGINT-21": 10,
    "SIGINT-60": 28,
    "SIGINT-68": 30,
}
"""Which step the checkpoint stood at, for each signal and the call at which it came."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in a folder, but for what says when it was made."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: json.dumps(
            {
                key: value
                for key, value in json.loads(path.read_text()).items()
                if key != "provenance"
            }
        ).encode()
        if path.name == "config.json"
        else path.read_bytes()
        for name, path in files.items()
    }


def test_a_fit_that_was_killed_and_resumed_is_bit_identical(tmp_path: Path):
    store = tmp_path / "store"
    options = [
        "--sites",
        "resid_post.2,mlp_out.0",
        "--corpus",
        argparse.__file__,
        "--tokens",
        "6000",
    ]
    made = CliRunner().invoke(app, ["harvest", *options, "--out", str(store)])
    assert made.exit_code == 0, made.stderr
    program = Path(__file__).with_name("killed_fits.py")
    done = subprocess.run(
        [sys.executable, program, store, tmp_path, *LEFT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hints = done.stderr.count("interrupted. What is finished is kept: the same command with --res")
    assert hints == sum(moment.startswith("SIGINT") for moment in LEFT)
    whole, last = contents(tmp_path / "whole"), contents(tmp_path / "whole-checkpoint")
    # Two dictionaries and the log; weights, moments, silences and the place in the data.
    assert len(whole) == 5
    assert set(last) == {"checkpoint.json", "step_000000030.safetensors"}
    assert json.loads(last["checkpoint.json"])["state"]["stream"]["batch"] > 0
    for moment, step in LEFT.items():
        begun = tmp_path / f"{moment}-begun"
        assert (json.loads(begun.read_text())["step"] if begun.exists() else None) == step, moment
        assert contents(tmp_path / moment) == whole, moment
        resumed = contents(tmp_path / f"{moment}-checkpoint")
        assert {name: resumed[name] for name in last} == last, moment
