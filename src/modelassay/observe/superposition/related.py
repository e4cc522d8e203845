"""Features in sets: on together, or one at a time."""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.progress import Progress
from modelassay.observe.superposition.data import spaced_densities
from modelassay.observe.superposition.measures import dimensionality
from modelassay.observe.superposition.setup import Setup, run
from modelassay.observe.superposition.single import described, study, trained_by, weights_of
from modelassay.observe.superposition.study import Row, Study

_COLLAPSED = 0.8  # cosine within a pair from which it counts as one direction (ours)


def set_cosines(
    encoder: Float[Tensor, "instance hidden feature"], set_size: int
) -> Float[Tensor, "instance set"]:
    """The mean cosine between the features of each set, pair by pair."""
    unit = torch.nn.functional.normalize(encoder, dim=1)
    sets = unit.mT.unflatten(1, (-1, set_size))
    cosines = sets @ sets.mT
    first, second = torch.triu_indices(set_size, set_size, 1)
    return cosines[..., first, second].mean(-1)


def _densities(full: bool) -> tuple[float, ...]:
    return tuple(spaced_densities(5 if full else 3, 400.0, 0.5).tolist())


def correlated(*, full: bool, seed: int, progress: Progress) -> Study:
    """Two sets of two features in two dimensions; each set is on as a whole."""
    return _pairs("correlated", full=full, seed=seed, progress=progress)


def anticorrelated(*, full: bool, seed: int, progress: Progress) -> Study:
    """Two sets of two features in two dimensions; of each set one at most is on."""
    return _pairs("anticorrelated", full=full, seed=seed, progress=progress)


def _pairs(name: str, *, full: bool, seed: int, progress: Progress) -> Study:
    together = name == "correlated"
    setup = Setup(
        n_features=4,
        n_hidden=2,
        densities=_densities(full),
        relation="correlated" if together else "anticorrelated",
        set_size=2,
        runs=4,
        training=trained_by(full),
    )
    runs = run(setup, seed=seed, purpose=name, progress=progress)
    cosines = set_cosines(runs.models.encoder, 2)
    rows = tuple(
        row | {"cosine within sets": float(cosines[index].mean())}
        for index, row in enumerate(described(setup, runs))
    )
    return study(
        name,
        f"Two {name} pairs in two dimensions",
        "Features of a pair have one colour. "
        + (
            "Those that are on together stand at right angles, and lie opposite others."
            if together
            else "Those that exclude each other lie opposite each other."
        ),
        "polygons",
        setup,
        seed=seed,
        tensors=weights_of(runs.models),
        rows=rows,
        colour_by_set=2,
    )


def collapse(*, full: bool, seed: int, progress: Progress) -> Study:
    """Three correlated pairs in two dimensions, from sparse to dense."""
    setup = Setup(
        n_features=6,
        n_hidden=2,
        densities=(0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8)
        if full
        else (0.02, 0.1, 0.3, 0.6),
        relation="correlated",
        set_size=2,
        runs=8 if full else 4,
        training=trained_by(full),
    )
    runs = run(setup, seed=seed, purpose="collapse", progress=progress)
    cosines = set_cosines(runs.models.encoder, 2)
    rows: tuple[Row, ...] = tuple(
        row | {"pairs collapsed": float((cosines[index] > _COLLAPSED).sum())}
        for index, row in enumerate(described(setup, runs))
    )
    return study(
        "collapse",
        "Three correlated pairs in two dimensions",
        "Features of a pair have one colour. Sparse: side by side. Dense: a pair becomes one "
        "direction, its principal component, so that nothing tells its features apart.",
        "polygons",
        setup,
        seed=seed,
        tensors=weights_of(runs.models),
        rows=rows,
        colour_by_set=2,
    )


def octahedron(*, full: bool, seed: int, progress: Progress) -> Study:
    """Two correlated sets of three features in three dimensions, during training."""
    setup = Setup(
        n_features=6,
        n_hidden=3,
        densities=(0.05,),
        relation="correlated",
        set_size=3,
        runs=4,
        training=trained_by(full),
    )
    steps = setup.training.steps
    snapshots = tuple(sorted({round(steps * (i / 60) ** 2) for i in range(60)}))
    runs = run(setup, seed=seed, purpose="octahedron", snapshots=snapshots, progress=progress)
    curves = dimensionality(runs.encoders[:, 0])
    loss = runs.batch_losses[:, 0]
    return study(
        "octahedron",
        "Two correlated sets of three in three dimensions",
        "Dimensionality of every feature during training: 1/2 each is the octahedron, whose "
        "opposite corners belong to different sets.",
        "curves",
        setup,
        seed=seed,
        tensors={
            "x": torch.tensor(runs.snapshot_steps),
            "y": curves.T,
            "loss": loss,
            "encoder": runs.models.encoder,
        },
        rows=described(setup, runs),
        labels=tuple(f"set {index // 3 + 1}" for index in range(6)),
        x_title="step",
        y_title="dimensionality",
        levels=True,
    )
