"""Checkpoints of a training run: some to look at later, one to go on from.

Kept steps are 0, 1, 2, 4, 8 … and the last one: what a model learns changes fastest at first.
Each is a folder that loads as a model. A folder appears whole or not at all.
"""

import csv
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from modelassay.core.files import read_tensors, write_tensors

FOLDER = "checkpoints"
RESUME = "resume.safetensors"
"""Weights, optimizers and draws of the latest saved step; beside the folder of checkpoints."""


def is_kept(step: int) -> bool:
    """Whether a step is 0 or a power of two."""
    return step & (step - 1) == 0


def keep(step: int, model: Any, tokenizer: Any, out: Path) -> Path:
    """Write the model as it is now to `out/checkpoints/step-NNNNNN`, unless it is there."""
    folder = out / FOLDER / f"step-{step:06d}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def save_state(
    path: Path,
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    generator: torch.Generator,
    facts: Mapping[str, Any],
) -> None:
    """Write everything that the next step depends on, atomically.

    Args:
        facts: numbers and settings, kept as JSON beside the tensors.
    """
    tensors = {f"model.{name}": p for name, p in model.named_parameters()}
    tensors["generator"] = generator.get_state()
    for index, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{number}.{key}": v for key, v in state.items()}
    write_tensors(path, tensors, {"facts": json.dumps(facts)})


def load_state(
    path: Path,
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    generator: torch.Generator,
) -> dict[str, Any]:
    """Put everything back as `save_state` found it, and give the facts."""
    tensors = read_tensors(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    generator.set_state(tensors["generator"])
    for index, optimizer in enumerate(optimizers):
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith(f"optimizer.{index}."):
                number, key = name.split(".")[2:]
                states.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["facts"])


def rows_up_to(log: Path, step: int) -> list[list[str]]:
    """The rows of a training log, header first, without those after a step."""
    with log.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return [header, *(row for row in rows if int(row[0]) <= step)]
