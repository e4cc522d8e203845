"""G of every level of knock-off on the tasks of T5's space."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.geometry.knockoff_readers import (
    Reader,
    performance,
    predictions,
    usable_geometry,
)
from modelassay.geometry.knockoffs import KNOCKOFFS, Original, knockoff
from modelassay.testbeds.knockoff_space import Space, Task

_N_TESTED = 2_000
_DRAWS = 3  # knock-offs of a level whose performance is averaged (ours)

Encode = Callable[[Float[Tensor, "input item"]], Float[Tensor, "input latent"]]


def performances(
    task: Task,
    inputs: Float[Tensor, "input item"],
    encode: Encode,
    directions: Sequence[Float[Tensor, "latent d"]],
    *,
    reader: Reader = "ridge",
    labels: int = 500,
    generator: torch.Generator,
) -> list[float]:
    """Held-out R^2 on a task in spaces with the same codes and different directions.

    The reader is fitted to inputs without the items of a fold, and tested on inputs whose only
    items of the group are the fold's.

    Args:
        task: what is read.
        inputs: the first `labels` fit, the last 2,000 test.
        encode: from items to codes.
        directions: what a unit of each latent writes, in every space.
        reader: its kind.
        labels: inputs that it is fitted to.
        generator: of the reader.
    """
    group = torch.stack(task.folds).any(0)
    found: list[list[Tensor]] = [[] for _ in directions]
    wanted: list[Tensor] = []
    for fold in task.folds:
        fitted, tested = inputs[:labels] * ~fold, inputs[-_N_TESTED:] * ~(group & ~fold)
        tested = tested[(tested * fold).any(1)]
        wanted.append(tested @ task.targets)
        codes, other = encode(fitted), encode(tested)
        for space, rows in zip(directions, found, strict=True):
            rows.append(
                predictions(reader, codes @ space, fitted @ task.targets, other @ space, generator)
            )
    return [performance(torch.cat(rows), torch.cat(wanted)) for rows in found]


def gaps(
    original: Original,
    inputs: Float[Tensor, "input item"],
    encode: Encode,
    chosen: Sequence[Task],
    seed: int,
    *,
    reader: Reader = "ridge",
    labels: int = 500,
) -> Mapping[str, float]:
    """G of every level, and the performance on the real space; means over tasks and draws."""
    spaces, levels = [original.directions], list(KNOCKOFFS)
    for level in levels:
        spaces += [knockoff(level, original, derived(seed, "T5", level, i)) for i in range(_DRAWS)]
    table: list[list[float]] = []
    real: list[float] = []
    for task in chosen:
        generator = derived(seed, "T5", "reader", task.name)
        found = torch.tensor(
            performances(
                task, inputs, encode, spaces, reader=reader, labels=labels, generator=generator
            )
        )
        by_level = found[1:].reshape(len(levels), _DRAWS).mean(1).tolist()
        real.append(float(found[0]))
        table.append([usable_geometry(p, random=by_level[0], real=real[-1]) for p in by_level])
    means = torch.tensor(table).mean(0)
    return {
        **{f"G {level}": float(mean) for level, mean in zip(levels, means, strict=True)},
        "perf": sum(real) / len(real),
    }


def original_of(space: Space, inputs: Float[Tensor, "input item"]) -> Original:
    """The true items with their own clusters and co-activation on the inputs."""
    return Original.of(space.directions, Codes.from_dense(inputs), space.clusters)
