"""Many equal features: fractions of a dimension, jumps in training, and vulnerability."""

from dataclasses import replace

import torch
from torch import Tensor

from modelassay.core.progress import Progress
from modelassay.core.randomness import derived
from modelassay.observe.superposition.adversarial import vulnerability
from modelassay.observe.superposition.data import spaced_densities
from modelassay.observe.superposition.measures import (
    REPRESENTED,
    dimensionality,
    dimensions_per_feature,
    nearest_fraction,
    norms,
    polytopes,
)
from modelassay.observe.superposition.setup import Runs, Setup, run
from modelassay.observe.superposition.single import study, trained_by
from modelassay.observe.superposition.study import Row, Study
from modelassay.observe.superposition.training import QUICK


def _setup(full: bool, conditions: int) -> Setup:
    return Setup(
        n_features=400 if full else 60,
        n_hidden=30 if full else 12,
        densities=tuple(spaced_densities(conditions, 20.0).tolist()),
        training=trained_by(full, replace(QUICK, batch=256)),
    )


def _shares(setup: Setup, runs: Runs) -> tuple[Row, ...]:
    """How many features lie at which fraction, and in which polytopes."""
    rows: list[Row] = []
    for index, density in enumerate(setup.densities):
        encoder = runs.models.encoder[index]
        shown = norms(encoder) > REPRESENTED
        values = dimensionality(encoder)[shown]
        names = [nearest_fraction(value) for value in values.tolist()]
        parts = [part.name for part in polytopes(encoder)]
        rows.append(
            {
                "density": density,
                "features represented": float(shown.sum()),
                "m / |W|²": float(dimensions_per_feature(encoder)),
                "sum of D": float(dimensionality(encoder).sum()),
                "at fractions": _counted(names),
                "polytopes": _counted(parts),
                "loss": float(runs.loss[index]),
            }
        )
    return tuple(rows)


def _counted(names: list[str]) -> str:
    counts = sorted({name: names.count(name) for name in names}.items(), key=lambda kv: -kv[1])
    return ", ".join(f"{count} × {name}" for name, count in counts[:5])


def _tensors(runs: Runs, setup: Setup) -> dict[str, Tensor]:
    encoder = runs.models.encoder
    return {
        "encoder": encoder,
        "bias": runs.models.bias,
        "dimensionality": dimensionality(encoder),
        "norm": norms(encoder),
        "dimensions_per_feature": dimensions_per_feature(encoder),
        "density": torch.tensor(setup.densities),
    }


def uniform(*, full: bool, seed: int, progress: Progress) -> Study:
    """Equal features: 60 in 12 dimensions (full: 400 in 30)."""
    setup = _setup(full, 20 if full else 10)
    runs = run(setup, seed=seed, purpose="uniform", progress=progress)
    return study(
        "uniform",
        "Fractions of a dimension",
        "Every dot is a feature that a model represents. They gather at the fractions of regular "
        "polytopes; at density 1 any rotation of the space is as good, so that D means nothing. "
        "The line is m / |W|², which is lower than the mean of D where norms exceed 1.",
        "dimensionality",
        setup,
        seed=seed,
        tensors=_tensors(runs, setup),
        rows=_shares(setup, runs),
    )


def energy_levels(*, full: bool, seed: int, progress: Progress) -> Study:
    """Dimensionalities of every feature during training."""
    setup = Setup(
        n_features=24,
        n_hidden=8,
        densities=(0.05,),
        training=trained_by(full, replace(QUICK, batch=256, learning_rate=3e-3)),
    )
    steps = setup.training.steps
    snapshots = tuple(sorted({round(steps * (i / 60) ** 2) for i in range(60)}))
    runs = run(setup, seed=seed, purpose="energy_levels", snapshots=snapshots, progress=progress)
    curves = dimensionality(runs.encoders[:, 0])
    level = [nearest_fraction(value) for value in curves[-1].tolist()]
    rows: tuple[Row, ...] = (
        {
            "features": float(setup.n_features),
            "at a fraction at the end": float(sum(name != "between" for name in level)),
            "fractions": _counted(level),
            "loss, first": float(runs.batch_losses[0, 0]),
            "loss": float(runs.loss[0]),
        },
    )
    return study(
        "energy_levels",
        "Dimensionalities during training",
        "Every line is a feature. A line that rests at a level and leaves it for another at once "
        "jumps; the table counts what lies at a fraction in the end.",
        "curves",
        setup,
        seed=seed,
        tensors={"x": torch.tensor(runs.snapshot_steps), "y": curves.T, "loss": runs.batch_losses},
        rows=rows,
        labels=tuple(f"feature {index}" for index in range(setup.n_features)),
        x_title="step",
        y_title="dimensionality",
        levels=True,
    )


def adversarial(*, full: bool, seed: int, progress: Progress) -> Study:
    """Vulnerability of the models of `uniform` to the steepest attack on each output."""
    setup = _setup(full, 20 if full else 8)
    runs = run(setup, seed=seed, purpose="adversarial", progress=progress)
    found = vulnerability(runs.models, setup.data(), derived(seed, "attacked inputs"))
    features = 1 / dimensions_per_feature(runs.models.encoder)
    rows: tuple[Row, ...] = tuple(
        {
            "density": density,
            "features per dimension": float(features[index]),
            "vulnerability": float(found[index]),
            "relative to the densest": float(found[index] / found[0]),
        }
        for index, density in enumerate(setup.densities)
    )
    return study(
        "adversarial",
        "Vulnerability to adversarial examples",
        "How far the steepest attack moves an output, over the attack's length (1: a feature with "
        "a dimension of its own), against 1 / density; and the features per dimension, |W|² / m.",
        "curves",
        setup,
        seed=seed,
        tensors={
            "x": 1 / torch.tensor(setup.densities),
            "y": torch.stack([found, features]),
            "encoder": runs.models.encoder,
        },
        rows=rows,
        labels=("vulnerability", "features per dimension"),
        x_title="1 / density",
        y_title="",
        levels=False,
    )
