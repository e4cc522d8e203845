"""One experiment's conditions, and the best of several models under each."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.superposition.data import FeatureData, Relation, importances
from modelassay.observe.superposition.models import ToyModels, random_models
from modelassay.observe.superposition.training import PAPER, Task, Training, train


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Models of one shape, under several densities."""

    n_features: int
    n_hidden: int
    densities: tuple[float, ...]
    """One condition each."""
    importance: float = 1.0
    """Feature i has this to the power of i."""
    runs: int = 1
    """Models under each condition, of which the one with the lowest loss is kept."""
    training: Training = PAPER
    relation: Relation = "independent"
    set_size: int = 1
    signed: bool = False
    tied: bool = True
    hidden_relu: bool = False
    output_relu: bool = True
    task: Task = "identity"
    varied: int | None = None
    """The feature whose density is that of the condition, while the others keep `base_density`."""
    base_density: float = 0.05

    def __post_init__(self) -> None:
        if min(self.n_features, self.n_hidden, self.runs, len(self.densities)) < 1:
            raise ValueRangeError(
                "A setup must have features, hidden units, runs and densities; got "
                f"{self.n_features}, {self.n_hidden}, {self.runs} and {len(self.densities)}. "
                "Give at least one of each."
            )

    def data(self) -> FeatureData:
        """The data of every condition, one instance each."""
        density = torch.tensor(self.densities)[:, None].repeat(1, self.n_features)
        if self.varied is not None:
            others = torch.arange(self.n_features) != self.varied
            density[:, others] = self.base_density
        return FeatureData(
            density=density,
            relation=self.relation,
            set_size=self.set_size,
            signed=self.signed,
        )

    def weights(self) -> Float[Tensor, " feature"]:
        """The features' importances."""
        return importances(self.n_features, self.importance)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Runs:
    """What the models of a setup came to."""

    models: ToyModels
    """The best of each condition."""
    losses: Float[Tensor, "condition run"]
    """Of all models; summed over features."""
    snapshot_steps: tuple[int, ...]
    encoders: Float[Tensor, "snapshot condition hidden feature"]
    """Of the best ones, during training."""
    batch_losses: Float[Tensor, "snapshot condition"]
    everyone: ToyModels
    """All models, those of one condition behind one another."""

    @property
    def loss(self) -> Float[Tensor, " condition"]:
        """Of the best model of each condition."""
        return self.losses.amin(1)


def run(
    setup: Setup,
    *,
    seed: int,
    purpose: str,
    snapshots: tuple[int, ...] = (),
    progress: Progress = SILENT,
) -> Runs:
    """Train all models of a setup in one batch and keep the best of each condition."""
    generator = derived(seed, "superposition", purpose)
    data = setup.data()
    every = FeatureData(
        density=data.density.repeat_interleave(setup.runs, dim=0),
        relation=data.relation,
        set_size=data.set_size,
        signed=data.signed,
    )
    start = random_models(
        len(every.density), setup.n_features, setup.n_hidden, generator,
        tied=setup.tied, hidden_relu=setup.hidden_relu, output_relu=setup.output_relu,
    )  # fmt: skip
    trained = train(
        start, every, setup.weights(), generator,
        training=setup.training, task=setup.task, snapshots=snapshots, progress=progress,
        description=purpose,
    )  # fmt: skip
    losses = trained.loss.reshape(-1, setup.runs)
    best = losses.argmin(1) + torch.arange(len(losses)) * setup.runs
    return Runs(
        models=trained.models.at(best),
        losses=losses,
        snapshot_steps=tuple(trained.snapshot_steps.tolist()),
        encoders=trained.encoders[:, best],
        batch_losses=trained.losses[:, best],
        everyone=trained.models,
    )
