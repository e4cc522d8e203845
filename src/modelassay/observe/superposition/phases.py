"""Phase diagrams as experiments."""

from typing import Any

import torch

from modelassay.core.progress import Progress
from modelassay.core.provenance import Provenance
from modelassay.observe.superposition.phase import PHASE_TRAINING, phase_diagram
from modelassay.observe.superposition.study import Row, Study
from modelassay.observe.superposition.theory import CANDIDATES


def _phase(
    name: str, n_features: int, n_hidden: int, *, full: bool, seed: int, progress: Progress
) -> Study:
    cells, models = (30, 10) if full else (12, 5)
    points = 12 if n_features == 2 else 8 if full else 6
    found = phase_diagram(
        n_features,
        n_hidden,
        torch.logspace(0, -2, cells),
        torch.logspace(-1, 1, cells),
        models=models,
        points=points,
        seed=seed,
        progress=progress,
    )
    settings: dict[str, Any] = {
        "n_features": n_features,
        "n_hidden": n_hidden,
        "models": models,
        "points": points,
        "steps": PHASE_TRAINING.steps,
        "learning_rate": PHASE_TRAINING.learning_rate,
        "candidates": CANDIDATES[n_features, n_hidden],
    }
    ratio = found.loss / found.predicted_loss
    rows: tuple[Row, ...] = (
        {
            "points of the grid": float(found.found.numel()),
            "same phase": found.agreement,
            "loss over the best candidate's, least": float(ratio.min()),
            "median": float(ratio.median()),
            "most": float(ratio.max()),
        },
    )
    return Study(
        name=name,
        title=f"Phases of a feature: n = {n_features}, m = {n_hidden}",
        shows="What becomes of the last feature: not represented, in superposition, or in a "
        "dimension of its own. Left: the cheapest of the candidates with closed-form losses. "
        "Right: trained models, averaged without the worst; they may do better than any candidate.",
        drawing="phase",
        tensors={
            "density": found.density,
            "importance": found.importance,
            "predicted": found.predicted,
            "predicted_loss": found.predicted_loss,
            "found": found.found,
            "norm": found.norm,
            "interference": found.interference,
            "loss": found.loss,
        },
        labels=("theory", "trained models"),
        rows=rows,
        settings=settings,
        provenance=Provenance.collect(seed=seed, experiment=name),
    )


def phase_2_1(*, full: bool, seed: int, progress: Progress) -> Study:
    """Two features in one dimension."""
    return _phase("phase_2_1", 2, 1, full=full, seed=seed, progress=progress)


def phase_3_2(*, full: bool, seed: int, progress: Progress) -> Study:
    """Three features in two dimensions."""
    return _phase("phase_3_2", 3, 2, full=full, seed=seed, progress=progress)
