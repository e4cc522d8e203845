"""How far a small change of the input moves an output: superposition makes models vulnerable.

The steepest attack on output i is along ``(W^T W)_i``: against a step of length eps the
pre-activation moves by ``eps |(W^T W)_i|``, which is eps for a feature with a dimension of its own
(Elhage et al. 2022). `vulnerability` measures it through the rectifier and relates it to eps.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.superposition.data import FeatureData
from modelassay.observe.superposition.measures import REPRESENTED, gram, norms
from modelassay.observe.superposition.models import ToyModels

BUDGET = 0.1
"""Length of an attack as a share of the mean length of inputs (Elhage et al. 2022)."""


def attacks(models: ToyModels) -> Float[Tensor, "instance feature input_feature"]:
    """The unit direction that raises each output most: rows of ``W^T W``, normalised."""
    return torch.nn.functional.normalize(gram(models.encoder), dim=-1)


def vulnerability(
    models: ToyModels,
    data: FeatureData,
    generator: torch.Generator,
    *,
    budget: float = BUDGET,
    inputs: int = 512,
) -> Float[Tensor, " instance"]:
    """Mean rise of an output over the attack's length, on inputs where its feature is on.

    Averaged over represented features; 1 for features with dimensions of their own. NaN where no
    represented feature is ever on in the inputs drawn.
    """
    rows = data.sample(inputs, generator)
    lengths = rows.norm(dim=-1)
    mean = (lengths.sum(1) / (lengths > 0).sum(1).clamp_min(1))[:, None]
    step = budget * mean
    before = models(rows)
    shown = norms(models.encoder) > REPRESENTED
    directions = attacks(models)
    total = torch.zeros(len(rows), device=rows.device)
    count = torch.zeros(len(rows), device=rows.device)
    for feature in range(rows.shape[2]):
        moved = models(rows + (step * directions[:, feature])[:, None])
        on = (rows[..., feature] > 0) & shown[:, feature, None]
        rise = (moved - before)[..., feature] / step
        total += (rise * on).sum(1)
        count += on.sum(1)
    return total / count
