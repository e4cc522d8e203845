"""Phase diagrams: what becomes of one extra feature, as density and importance change."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.superposition.measures import REPRESENTED, interference, norms
from modelassay.observe.superposition.models import random_models
from modelassay.observe.superposition.quadrature import quadrature
from modelassay.observe.superposition.theory import candidate_losses, predicted_phase
from modelassay.observe.superposition.training import Training, train

PHASE_TRAINING = Training(
    steps=500, batch=1, learning_rate=0.03, weight_decay=0.0, schedule="falling"
)
"""Noiseless descent on the integral (ours); the batch size has no meaning there."""
_SHARED = 0.5  # interference from which a feature counts as sharing its dimension (ours)


@dataclass(frozen=True, kw_only=True, eq=False)
class PhaseDiagram:
    """Theory and trained models over the same grid."""

    n_features: int
    n_hidden: int
    density: Float[Tensor, " density"]
    importance: Float[Tensor, " importance"]
    """Of the extra feature; the others have 1."""
    predicted: Int[Tensor, "density importance"]
    """Number of the cheapest candidate of `theory.CANDIDATES`."""
    predicted_loss: Float[Tensor, "density importance"]
    found: Int[Tensor, "density importance"]
    """What the best trained model does with the extra feature: 0 ignored, 1 dedicated, 2 in
    superposition."""
    norm: Float[Tensor, "density importance"]
    """``|W_extra|``, averaged over the models without the worst."""
    interference: Float[Tensor, "density importance"]
    """Of the extra feature, likewise, counted up to 1."""
    loss: Float[Tensor, "density importance"]
    """Of the best model."""

    @property
    def agreement(self) -> float:
        """Share of the grid on which theory and trained models do the same with the feature.

        Of n = 3, the candidate in which the others are antipodal gives the feature a dimension.
        """
        expected = self.predicted.where(self.predicted < 3, torch.ones_like(self.predicted))
        return float((expected == self.found).float().mean())


def phase_diagram(
    n_features: int,
    n_hidden: int,
    density: Float[Tensor, " density"],
    importance: Float[Tensor, " importance"],
    *,
    models: int = 10,
    training: Training = PHASE_TRAINING,
    points: int = 12,
    seed: int = 0,
    progress: Progress = SILENT,
) -> PhaseDiagram:
    """Train some models at every point of a grid; the extra feature is the last one.

    Raises:
        ValueRangeError: for another size than 2 features in 1 dimension or 3 in 2.
    """
    p, r = torch.meshgrid(density, importance, indexing="ij")
    costs = candidate_losses(p, r, n_features=n_features, n_hidden=n_hidden)
    generator = derived(seed, "phase", n_features, n_hidden)
    weights = torch.ones(p.numel(), n_features)
    weights[:, -1] = r.flatten()
    trained = train(
        random_models(p.numel() * models, n_features, n_hidden, generator),
        quadrature(p.flatten().repeat_interleave(models), n_features, points),
        weights.repeat_interleave(models, dim=0),
        generator,
        training=training,
        progress=progress,
        description=f"Phase diagram, n={n_features}, m={n_hidden}",
    )
    shape = (len(density), len(importance), models)
    encoder = trained.models.encoder
    loss = trained.loss.reshape(shape)
    norm = norms(encoder)[:, -1].reshape(shape)
    crowded = interference(encoder)[:, -1].clamp_max(1).reshape(shape)
    best = loss.argmin(-1, keepdim=True)
    found = torch.where(crowded.gather(-1, best) > _SHARED, 2, 1)
    found = torch.where(norm.gather(-1, best) < REPRESENTED, 0, found)
    kept = loss.argsort(-1)[..., : max(1, models - 1)]
    return PhaseDiagram(
        n_features=n_features,
        n_hidden=n_hidden,
        density=density,
        importance=importance,
        predicted=predicted_phase(p, r, n_features=n_features, n_hidden=n_hidden),
        predicted_loss=costs.amin(-1),
        found=found[..., 0],
        norm=norm.gather(-1, kept).mean(-1),
        interference=crowded.gather(-1, kept).mean(-1),
        loss=loss.amin(-1),
    )
