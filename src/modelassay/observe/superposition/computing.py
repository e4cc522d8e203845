"""Rectified hidden units: a privileged basis, and absolute values computed in superposition."""

from dataclasses import replace

from modelassay.core.progress import Progress
from modelassay.observe.superposition.measures import features_per_neuron
from modelassay.observe.superposition.setup import Runs, Setup, run
from modelassay.observe.superposition.single import study, trained_by
from modelassay.observe.superposition.study import Row, Study
from modelassay.observe.superposition.training import QUICK

_MONOSEMANTIC = 1.2  # features per neuron below which a neuron counts as of one feature (ours)
_ALIVE = 0.1  # largest weight into a neuron that does something (ours)


def privileged(*, full: bool, seed: int, progress: Progress) -> Study:
    """10 features through 5 rectified units, importance 0.75^i, the best of many runs."""
    setup = Setup(
        n_features=10,
        n_hidden=5,
        importance=0.75,
        densities=(1.0, 0.5, 0.25, 0.1, 0.04, 0.01) if full else (1.0, 0.5, 0.1, 0.04),
        runs=1000 if full else 10,
        hidden_relu=True,
        training=trained_by(full, replace(QUICK, batch=128)),
    )
    runs = run(setup, seed=seed, purpose="privileged", progress=progress)
    return study(
        "privileged",
        "Rectified hidden units",
        "Weights of every feature (rows) into each neuron (columns). Dense: neurons of one feature "
        "each. Sparse: neurons share features.",
        "neurons",
        setup,
        seed=seed,
        tensors={"encoder": runs.models.encoder, "bias": runs.models.bias},
        rows=_neurons(setup, runs),
    )


def _neurons(setup: Setup, runs: Runs) -> tuple[Row, ...]:
    encoder = runs.models.rescaled().encoder if not setup.tied else runs.models.encoder
    per_neuron = features_per_neuron(encoder)
    alive = runs.models.encoder.abs().amax(2) > _ALIVE
    rows: list[Row] = []
    for index, density in enumerate(setup.densities):
        found = per_neuron[index][alive[index]]
        rows.append(
            {
                "density": density,
                "neurons in use": float(len(found)),
                "of one feature": float((found < _MONOSEMANTIC).sum()),
                "features per neuron": float(found.mean()) if len(found) else 0.0,
                "loss": float(runs.loss[index]),
                "loss of ignoring all": _ignoring(setup, density),
            }
        )
    return tuple(rows)


def _ignoring(setup: Setup, density: float) -> float:
    """The loss of the best constants: the importance-weighted variance of the targets."""
    # |x| of a signed feature has the distribution of an unsigned one.
    return float(setup.weights().sum()) * (density / 3 - density**2 / 4)


def _absolute(name: str, setup: Setup, shows: str, *, seed: int, progress: Progress) -> Study:
    runs = run(setup, seed=seed, purpose=name, progress=progress)
    models = runs.models.rescaled()
    assert models.decoder is not None
    return study(
        name,
        f"Absolute values: n = {setup.n_features}, m = {setup.n_hidden}",
        shows,
        "neurons",
        setup,
        seed=seed,
        tensors={"encoder": models.encoder, "decoder": models.decoder, "bias": models.bias},
        rows=_neurons(setup, runs),
    )


def absolute_3(*, full: bool, seed: int, progress: Progress) -> Study:
    """|x| of three features by six neurons: two neurons a feature do it exactly."""
    setup = Setup(
        n_features=3,
        n_hidden=6,
        densities=(1.0, 0.1),
        runs=8 if full else 6,
        signed=True,
        tied=False,
        hidden_relu=True,
        task="absolute",
        training=trained_by(full, replace(QUICK, batch=128)),
    )
    shows = (
        "Weights of every feature (rows) into each neuron (columns), and below them the weights "
        "out of it. |x| = ReLU(x) + ReLU(−x): two "
        "neurons a feature, with weights 1 and −1."
    )
    return _absolute("absolute_3", setup, shows, seed=seed, progress=progress)


def absolute_100(*, full: bool, seed: int, progress: Progress) -> Study:
    """|x| of 100 features by 40 neurons (quick: 30 by 12), importance 0.8^i."""
    setup = Setup(
        n_features=100 if full else 30,
        n_hidden=40 if full else 12,
        importance=0.8,
        densities=(1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001) if full else (1.0, 0.1, 0.01),
        signed=True,
        tied=False,
        hidden_relu=True,
        task="absolute",
        training=trained_by(full, replace(QUICK, batch=256)),
    )
    shows = (
        "Weights of every feature (rows) into each neuron (columns), and below them the weights "
        "out of it; each neuron rescaled so that its largest input weight is 1. The sparser the "
        "features, the more of them a neuron serves."
    )
    return _absolute("absolute_100", setup, shows, seed=seed, progress=progress)
