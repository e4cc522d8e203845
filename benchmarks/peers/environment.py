"""Where the peers' Python is, and how a script runs in it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DEFAULT = REPOSITORY / ".peers/bin/python"
VARIABLE = "MODELASSAY_PEERS"


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option ``--python``."""
    parser.add_argument(
        "--python",
        type=Path,
        help=f"Python of the peers' environment (else {VARIABLE}, else .peers/bin/python)",
    )


def found_python(given: Path | None = None) -> Path | None:
    """The peers' Python, if there is one."""
    path = given or Path(os.environ.get(VARIABLE) or DEFAULT)
    return path if path.is_file() else None


def peers_python(given: Path | None = None) -> Path:
    """The peers' Python; ends the program with advice where there is none."""
    path = found_python(given)
    if path is None:
        wanted = given or os.environ.get(VARIABLE) or DEFAULT
        sys.exit(
            f"The peers' environment must be there; got no {wanted}. Make it once:\n"
            "    python -m venv .peers\n"
            "    .peers/bin/pip install -r benchmarks/peers/requirements.txt\n"
            f"or pass --python PATH, or set {VARIABLE}."
        )
    return path


def environment(threads: int | None = None) -> dict[str, str]:
    """Environment variables of a process that must not reach the network or an accelerator."""
    variables = {
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "disabled",
        "CUDA_VISIBLE_DEVICES": "",
        # sparsify's Triton decoder needs an accelerator; its other one is used as it comes.
        "SPARSIFY_DISABLE_TRITON": "1",
    }
    if threads is not None:
        variables |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return os.environ | variables


def run_in(python: Path, module: str, *arguments: str) -> str:
    """What a module of this folder prints in some environment; its warnings go to stderr."""
    finished = subprocess.run(
        [str(python), "-m", f"benchmarks.peers.{module}", *arguments],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return finished.stdout
