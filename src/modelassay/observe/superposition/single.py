"""Independent features of unequal importance: what is represented, and how."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from modelassay.core.progress import Progress
from modelassay.core.provenance import Provenance
from modelassay.observe.superposition.data import spaced_densities
from modelassay.observe.superposition.measures import (
    REPRESENTED,
    dimensionality,
    dimensions_per_feature,
    gram,
    interference,
    norms,
    polytopes,
)
from modelassay.observe.superposition.models import ToyModels
from modelassay.observe.superposition.setup import Runs, Setup, run
from modelassay.observe.superposition.study import Drawing, Row, Study
from modelassay.observe.superposition.training import PAPER, QUICK, Training

SMALL_QUICK = replace(QUICK, batch=256)
"""For models of a few features."""


def weights_of(models: ToyModels) -> dict[str, Tensor]:
    """What most drawings show of tied models."""
    encoder = models.encoder
    return {
        "encoder": encoder,
        "bias": models.bias,
        "gram": gram(encoder),
        "norm": norms(encoder),
        "interference": interference(encoder),
        "dimensionality": dimensionality(encoder),
    }


def described(setup: Setup, runs: Runs) -> tuple[Row, ...]:
    """One row a condition."""
    encoder = runs.models.encoder
    shown = (norms(encoder) > REPRESENTED).sum(1)
    rows: list[Row] = []
    for index, density in enumerate(setup.densities):
        shares = dimensionality(encoder[index])[norms(encoder[index]) > REPRESENTED]
        rows.append(
            {
                "density": density,
                "features represented": float(shown[index]),
                "m / |W|²": float(dimensions_per_feature(encoder[index])),
                "mean D": float(shares.mean()) if len(shares) else 0.0,
                "shapes": shapes(encoder[index]) if setup.n_features <= 20 else "",
                "loss": float(runs.loss[index]),
            }
        )
    return tuple(rows)


def shapes(weights: Tensor) -> str:
    """The polytopes of one model in words: "2 x digon, own dimension"."""
    names = [part.name for part in polytopes(weights)]
    counted = {name: names.count(name) for name in names}
    said = (name if count == 1 else f"{count} × {name}" for name, count in counted.items())
    return ", ".join(said) or "nothing"


def study(
    name: str,
    title: str,
    shows: str,
    drawing: Drawing,
    setup: Setup,
    *,
    seed: int,
    tensors: dict[str, Tensor],
    rows: tuple[Row, ...],
    labels: tuple[str, ...] | None = None,
    **more: Any,
) -> Study:
    """A study of a setup; its panels are labelled with the densities unless told otherwise."""
    return Study(
        name=name,
        title=title,
        shows=shows,
        drawing=drawing,
        tensors=tensors,
        labels=labels or tuple(f"density {density:.3g}" for density in setup.densities),
        rows=rows,
        settings=setup.as_json() | more,
        provenance=Provenance.collect(seed=seed, experiment=name),
    )


def trained_by(full: bool, quick: Training = SMALL_QUICK) -> Training:
    """The published training in full size, else a short one."""
    return PAPER if full else quick


def pentagon(*, full: bool, seed: int, progress: Progress) -> Study:
    """Five features in two dimensions, importance 0.9^i, ten densities from 1 to 1/20."""
    setup = Setup(
        n_features=5,
        n_hidden=2,
        importance=0.9,
        densities=tuple(spaced_densities(10, 20.0).tolist()),
        runs=4,
        training=trained_by(full),
    )
    runs = run(setup, seed=seed, purpose="pentagon", progress=progress)
    return study(
        "pentagon",
        "Five features in two dimensions",
        "Dense features: the two most important ones at a right angle, the others dropped. "
        "Sparser: two digons, then all five in a pentagon. Colours go by importance; the circle "
        "is of radius 1.",
        "polygons",
        setup,
        seed=seed,
        tensors=weights_of(runs.models),
        rows=described(setup, runs),
    )


def _strips(name: str, *, full: bool, seed: int, progress: Progress, relu: bool) -> Study:
    setup = Setup(
        n_features=80 if full else 20,
        n_hidden=20 if full else 5,
        importance=0.9 if full else 0.7,
        densities=(1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001) if relu else (0.3,),
        training=trained_by(full, QUICK),
        output_relu=relu,
    )
    runs = run(setup, seed=seed, purpose=name, progress=progress)
    return study(
        name,
        "Weights and superposition" if relu else "A linear model",
        "WᵀW with the bias beside it, and below the norm of every feature (the line is 1), red "
        "where others excite it as strongly as itself. "
        + (
            "The sparser the features, the more of them share the dimensions."
            if relu
            else "Without rectifier the model keeps as many features as it has dimensions, at any "
            "density."
        ),
        "strips",
        setup,
        seed=seed,
        tensors=weights_of(runs.models),
        rows=described(setup, runs),
    )


def strips(*, full: bool, seed: int, progress: Progress) -> Study:
    """20 features in 5 dimensions (full: 80 in 20), of falling importance."""
    return _strips("strips", full=full, seed=seed, progress=progress, relu=True)


def linear(*, full: bool, seed: int, progress: Progress) -> Study:
    """The same without rectifier."""
    return _strips("linear", full=full, seed=seed, progress=progress, relu=False)


def perturbed(*, full: bool, seed: int, progress: Progress) -> Study:
    """Five equal features of density 0.05, of which the first one's density varies."""
    factors = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.5, 4.0)
    setup = Setup(
        n_features=5,
        n_hidden=2,
        densities=tuple(0.05 * factor for factor in factors),
        varied=0,
        runs=8 if full else 4,
        training=trained_by(full),
    )
    runs = run(setup, seed=seed, purpose="perturbed", progress=progress)
    return study(
        "perturbed",
        "One feature sparser or denser than the others",
        "The best of several models each. The pentagon gives way to two digons, without the first "
        "feature (dark), where that feature is much sparser than the others (density 0.05).",
        "polygons",
        setup,
        seed=seed,
        tensors=weights_of(runs.models),
        rows=described(setup, runs),
    )
