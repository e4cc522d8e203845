"""Training many toy models at once, each on data of its own."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.observe.superposition.data import Source
from modelassay.observe.superposition.models import ToyModels

Task = Literal["identity", "absolute"]
_REPORT_EVERY = 50
_MEASURED = 4096  # inputs of one draw of the final loss (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How to train; the defaults are those of the code of Elhage et al. (2022)."""

    steps: int = 10_000
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["constant", "falling"] = "constant"
    """Falling: a linear decay to 0 over the second half (ours)."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch) < 1 or not self.learning_rate > 0:
            raise ValueRangeError(
                "Training must have at least one step, one input a batch and a learning rate "
                f"above 0; got {self.steps}, {self.batch} and {self.learning_rate}. "
                "Pass positive numbers."
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * min(1.0, 2 * (1 - step / self.steps))


PAPER = Training()
"""10,000 steps of 1,024 inputs, AdamW at 1e-3."""

QUICK = Training(steps=1500, batch=512, learning_rate=1e-2, schedule="falling")
"""A thirteenth of the work (ours); `docs/superposition.md` compares the two."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """Trained models and how they got there."""

    models: ToyModels
    loss: Float[Tensor, " instance"]
    """On inputs drawn after training; summed over features."""
    snapshot_steps: Int[Tensor, " snapshot"]
    encoders: Float[Tensor, "snapshot instance hidden feature"]
    losses: Float[Tensor, "snapshot instance"]
    """Of the batch of that step."""


def target_of(
    inputs: Float[Tensor, "instance input feature"], task: Task
) -> Float[Tensor, "instance input feature"]:
    """What the outputs should be."""
    return inputs.abs() if task == "absolute" else inputs


def train(
    models: ToyModels,
    source: Source,
    importance: Float[Tensor, "..."],
    generator: torch.Generator,
    *,
    training: Training = PAPER,
    task: Task = "identity",
    snapshots: Sequence[int] = (),
    progress: Progress = SILENT,
    description: str = "Training toy models",
) -> Trained:
    """Train every instance on its own loss with AdamW; the models given stay as they are.

    Args:
        importance: `[feature]`, or `[instance, feature]`.
        snapshots: steps before which the encoder and the batch's loss are kept.

    Raises:
        ShapeError: if importance fits neither shape.
    """
    importance = _expanded(importance, models)
    trained = {k: v.clone().requires_grad_() for k, v in models.parameters().items()}
    current = ToyModels(
        encoder=trained["encoder"], bias=trained["bias"], decoder=trained.get("decoder"),
        hidden_relu=models.hidden_relu, output_relu=models.output_relu,
    )  # fmt: skip
    optimiser = torch.optim.AdamW(
        trained.values(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    kept: list[tuple[int, Tensor, Tensor]] = []
    wanted = set(snapshots)
    with progress.task(description, total=training.steps, unit="step") as bar, torch.no_grad():
        for step in range(training.steps):
            inputs, weights = source.batch(training.batch, generator)
            gradients, loss = current.gradients(
                inputs, target_of(inputs, task), importance, weights
            )
            if step in wanted:
                kept.append((step, current.encoder.detach().clone(), loss))
            for name, parameter in trained.items():
                parameter.grad = gradients[name]
            for group in optimiser.param_groups:
                group["lr"] = training.rate(step)
            optimiser.step()
            if (step + 1) % _REPORT_EVERY == 0 or step + 1 == training.steps:
                done = (step % _REPORT_EVERY) + 1
                bar.advance(done, loss=float(loss.mean()))
    final = _detached(current)
    shape = (0, *models.encoder.shape)
    return Trained(
        models=final,
        loss=expected_loss(final, source, importance, generator, task=task),
        snapshot_steps=torch.tensor([step for step, _, _ in kept], dtype=torch.long),
        encoders=torch.stack([e for _, e, _ in kept]) if kept else models.encoder.new_zeros(shape),
        losses=torch.stack([loss for _, _, loss in kept])
        if kept
        else models.bias.new_zeros(0, len(models.bias)),
    )


def expected_loss(
    models: ToyModels,
    source: Source,
    importance: Float[Tensor, "..."],
    generator: torch.Generator,
    *,
    task: Task = "identity",
    draws: int = 8,
) -> Float[Tensor, " instance"]:
    """The loss on `draws` × 4,096 fresh inputs, or the integral of a quadrature."""
    importance = _expanded(importance, models)
    total = torch.zeros(len(models.bias), device=models.bias.device)
    for done in itertools.count(1):
        inputs, weights = source.batch(_MEASURED, generator)
        total += models.loss(inputs, target_of(inputs, task), importance, weights)
        if weights is not None or done == draws:
            return total / done
    raise AssertionError


def _expanded(importance: Tensor, models: ToyModels) -> Tensor:
    shape = models.bias.shape
    if importance.shape not in (shape, shape[1:]):
        raise ShapeError(
            f"importance must be [{shape[1]}] or [{shape[0]}, {shape[1]}]; got "
            f"{list(importance.shape)}. Give every feature a weight."
        )
    return importance.to(models.bias).expand(shape)


def _detached(models: ToyModels) -> ToyModels:
    return ToyModels(
        encoder=models.encoder.detach(),
        bias=models.bias.detach(),
        decoder=None if models.decoder is None else models.decoder.detach(),
        hidden_relu=models.hidden_relu,
        output_relu=models.output_relu,
    )
