"""Whole runs of recipes whose training remembers or draws something, stopped and taken up."""

from pathlib import Path
from typing import Any

import pytest
import torch

from modelassay.activations.harvest import Harvest
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    AnnealedL1,
    Archetypal,
    Gated,
    MatchingPursuit,
    Matryoshka,
    TopK,
)
from modelassay.fitting.fit import fit

RECIPES: list[Recipe] = [
    AnnealedL1(width=64, l1_coefficient=1.0),
    Matryoshka(width=64, k=3, random_prefixes=6),
    Matryoshka.of(Gated(width=64, l1_coefficient=1.0), random_prefixes=4),
    TopK(width=64, k=3, free_decoder=True),
    MatchingPursuit(width=64, k=3),
    Archetypal(width=64, k=3, candidates=40, relaxation=0.2),
]
SHORT: dict[str, Any] = {
    "tokens": 80 * 128,
    "batch_tokens": 128,
    "learning_rate": 1e-2,
    "seed": [0, 1, 2, 3, 4, 5],
    "progress": SILENT,
}


class _Stop(Exception):
    """Ends a run in its middle."""


class _StoppingLog:
    """Ends a run at its third look, after which a checkpoint stands."""

    looks = 0

    def write(self, rows: object) -> None:
        del rows
        self.looks += 1
        if self.looks == 3:
            raise _Stop

    def close(self) -> None:
        pass


def test_stopped_and_resumed_run_is_bit_identical(
    planted: Harvest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("modelassay.fitting.trainer.SAVE_EVERY_SECONDS", 0)
    whole = fit(RECIPES, planted, **SHORT)
    with pytest.raises(_Stop):
        fit(RECIPES, planted, checkpoint=tmp_path / "run", log=[_StoppingLog()], **SHORT)
    resumed = fit(RECIPES, planted, checkpoint=tmp_path / "run", resume=True, **SHORT)
    for one, other in zip(whole, resumed, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), (one.name, name)


def test_random_prefixes_are_drawn_from_the_seed(planted: Harvest):
    recipe, short = RECIPES[1], SHORT | {"tokens": 5 * 128}
    one, same, other = (
        fit([TopK(width=8, k=1), recipe], planted, **short | {"seed": [0, seed]})[1]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.W_dec, same.W_dec)
    assert not torch.equal(one.W_dec, other.W_dec)
