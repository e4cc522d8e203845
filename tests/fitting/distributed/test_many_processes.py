"""Runs of two and four processes on this machine against runs of one."""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from modelassay.cli.main import app
from modelassay.core.files import read_json, read_tensors
from modelassay.decompositions.storage import load_decomposition
from modelassay.fitting import trainer
from modelassay.fitting.logs import Measurement
from tests.fitting.distributed.runs import (
    CASES,
    OPTIONS,
    RECIPES,
    RESUMED,
    VARIED,
    Figures,
    fitted,
    selection_case,
)

ROOT = Path(__file__).parents[3]
PROGRAM = Path(__file__).with_name("runs.py")


def started(job: str, folder: Path, n_processes: int) -> list[subprocess.Popen[str]]:
    """Processes that do a job together, as `torchrun` would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(n_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), job, str(folder)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(n_processes)
    ]


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit code and words of every process."""
    try:
        words = [process.communicate(timeout=200)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, said) for process, said in zip(processes, words, strict=True)]


def succeeded(processes: Sequence[subprocess.Popen[str]]) -> None:
    for code, words in ended(processes):
        assert code == 0, words


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """What one process fits."""
    return fitted(list(RECIPES.values()))


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, Tensor]:
    """What one process fits of the run that is interrupted elsewhere."""
    return fitted(RESUMED)


@pytest.fixture(scope="module")
def of_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What four processes leave."""
    folder = tmp_path_factory.mktemp("four")
    succeeded(started("in_four", folder, 4))
    return folder


@pytest.fixture(scope="module")
def of_two(of_four: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave, of which some goes on from four processes and from one."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(of_four / "checkpoint", folder / "from_four")
    checkpoint_of_one(folder / "from_one")
    succeeded(started("in_two", folder, 2))
    return folder


def checkpoint_of_one(folder: Path) -> None:
    """What is current at the third look of a run of one process that saves at each."""

    class Copy(Figures):
        def write(self, rows: Sequence[Measurement]) -> None:
            super().write(rows)
            if rows[0].step == 15:
                shutil.copytree(folder.with_name("kept"), folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "SAVE_EVERY_SECONDS", -1.0)
        fitted(RESUMED, checkpoint=folder.with_name("kept"), log=[Copy()])


def assert_like(found: dict[str, Tensor], expected: dict[str, Tensor], number: int) -> None:
    """The weights and figures of a dictionary are those that one process has."""
    names = [name for name in expected if name.startswith(f"{number}.")]
    assert len(names) >= 8
    for name in names:
        assert torch.allclose(found[name], expected[name], rtol=1e-5, atol=1e-5), name


@pytest.mark.parametrize("mesh", ["2x2", "1x2", "2x1"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_many_processes_fit_what_one_fits(
    mesh: str, recipe: str, alone: dict[str, Tensor], request: pytest.FixtureRequest
):
    folder = request.getfixturevalue("of_four" if mesh == "2x2" else "of_two")
    found = read_tensors(folder / f"{mesh}.safetensors")
    assert_like(found, alone, list(RECIPES).index(recipe))


def test_the_runs_compared_have_moved_and_have_dead_latents(alone: dict[str, Tensor]):
    for number, name in enumerate(RECIPES):
        explained = alone[f"{number}.explained_variance"]
        assert explained.max() > explained.min() + 0.02, (name, explained)
    for name in ("many dead", "many dead with signs"):
        assert alone[f"{list(RECIPES).index(name)}.dead_share"][1:].min() > 0.1


@pytest.mark.parametrize(("mesh", "n_processes"), [("2x2", 4), ("1x2", 2), ("2x1", 2)])
def test_every_process_has_the_same_weights_to_the_bit(
    mesh: str, n_processes: int, request: pytest.FixtureRequest
):
    folder = request.getfixturevalue("of_four" if n_processes == 4 else "of_two")
    hashes = [read_json(folder / f"{mesh}_{rank}.json")["hash"] for rank in range(n_processes)]
    assert len(set(hashes)) == 1


def test_options_mean_the_same_to_many_processes(of_two: Path):
    found, expected = read_tensors(of_two / "options.safetensors"), fitted(VARIED, options=OPTIONS)
    assert expected["0.l0"][0] > 5 > expected["0.l0"][-1]
    for number in range(len(VARIED)):
        assert_like(found, expected, number)


def kept(folder: Path, name: str) -> list[Tensor]:
    return [read_tensors(folder / f"kept_{rank}.safetensors")[name] for rank in range(4)]


def test_choice_among_processes_is_that_of_a_stable_sort_of_all(of_four: Path):
    n_cut_ties = 0
    for case in range(CASES):
        cases = [selection_case(case, rank) for rank in range(4)]
        k = cases[0][2]
        dense = torch.cat([per_token for per_token, _, _ in cases], 1).double()
        order = dense.argsort(dim=1, descending=True, stable=True)[:, :k]
        expected = torch.zeros_like(dense, dtype=torch.bool).scatter_(1, order, True) & (dense > 0)
        found = torch.cat(kept(of_four, f"{case}.token"), 1)
        assert torch.equal(found, expected), case
        lowest = torch.where(found, dense, torch.inf).amin(1, keepdim=True)
        n_cut_ties += int(((dense == lowest) & ~found).sum())

        entries = torch.cat([of_batch for _, of_batch, _ in cases]).double()
        order = entries.argsort(descending=True, stable=True)[: 7 * k]
        chosen = torch.zeros_like(entries, dtype=torch.bool).index_fill_(0, order, True)
        assert torch.equal(torch.cat(kept(of_four, f"{case}.batch")), chosen), case
    assert n_cut_ties > 50


def test_an_interruption_of_one_process_stops_all_after_the_same_step(of_four: Path):
    index = json.loads((of_four / "checkpoint" / "checkpoint.json").read_text())
    assert index["step"] == 10
    assert len(index["files"]) == 4
    assert {path.name for path in (of_four / "checkpoint").iterdir()} == {
        "checkpoint.json",
        *index["files"],
    }


@pytest.mark.parametrize("name", ["from_four", "from_one"])
def test_two_processes_go_on_from_a_checkpoint_of_four_and_of_one(
    name: str, of_two: Path, uninterrupted: dict[str, Tensor]
):
    found = read_tensors(of_two / f"{name}.safetensors")
    later = {n: t[2:] if t.dtype == torch.float64 else t for n, t in uninterrupted.items()}
    for number in range(len(RESUMED)):
        assert_like(found, later, number)


def test_one_process_goes_on_from_a_checkpoint_of_four(
    of_four: Path, uninterrupted: dict[str, Tensor], tmp_path: Path
):
    shutil.copytree(of_four / "checkpoint", tmp_path / "checkpoint")
    found = fitted(RESUMED, checkpoint=tmp_path / "checkpoint", resume=True)
    later = {n: t[2:] if t.dtype == torch.float64 else t for n, t in uninterrupted.items()}
    for number in range(len(RESUMED)):
        assert_like(found, later, number)


def test_torchrun_fits_from_the_command_line(tmp_path: Path):
    runner = CliRunner()
    harvest = ["harvest", "--sites", "resid_post.2", "--corpus", argparse.__file__]
    made = runner.invoke(app, [*harvest, "--tokens", "6000", "--out", str(tmp_path / "store")])
    assert made.exit_code == 0, made.stderr
    asked = ["fit", str(tmp_path / "store"), "--width", "24", "--k", "3", "--tokens", "8192"]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, "-m", "modelassay", *asked, "--latent-shards", "2", "--out", tmp_path / "two"],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Explained variance") == 1
    assert runner.invoke(app, [*asked, "--out", str(tmp_path / "one")]).exit_code == 0
    two, one = (load_decomposition(tmp_path / name) for name in ("two", "one"))
    assert torch.allclose(two.directions, one.directions, atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [
        "config.json",
        "log.csv",
        "weights.safetensors",
    ]


def test_processes_of_torchrun_come_together_more_than_once(tmp_path: Path):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*start, str(PROGRAM), "in_two_again_and_again", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=200,
    )
    first, *others = (read_tensors(tmp_path / f"{time}.safetensors") for time in range(3))
    for other in others:
        assert all(torch.equal(other[name], tensor) for name, tensor in first.items())


def test_a_process_that_ends_is_an_error_of_the_others(tmp_path: Path):
    (code, words), (other, _) = ended(started("in_two_of_which_one_ends", tmp_path, 2))
    assert other == 9
    assert code == 1
    assert "WorkerError: All processes must take part in every step; got from one of them" in words


def test_a_process_that_does_not_answer_is_an_error_of_the_others(tmp_path: Path):
    waiting, sleeping = started("in_two_of_which_one_waits", tmp_path, 2)
    try:
        ((code, words),) = ended([waiting])
    finally:
        sleeping.kill()
        sleeping.communicate()
    assert code == 1
    assert "WorkerError" in words
