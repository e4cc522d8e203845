"""Ridge regression on scaled activations: the linear probe of a quantity, as depth or place."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.observe.probes.probe import LinearHead


def ridge_regressions(
    inputs: Float[Tensor, "item width"],
    targets: Float[Tensor, " item"],
    penalties: Sequence[float],
) -> tuple[LinearHead, ...]:
    """Minimise ``mean_i (y_i - w x_i - b)^2 / 2 + l2 / 2 |w|^2`` for each penalty, in closed form.

    One eigendecomposition of the covariance serves all penalties. The bias is not penalised.

    Args:
        inputs: scaled activations.
        penalties: above 0.

    Raises:
        ValueRangeError: if a penalty is not positive.

    Reference: Hoerl & Kennard 1970.
    """
    if min(penalties) <= 0:
        raise ValueRangeError(
            f"l2 must be above 0; got {min(penalties)}. Copied columns have no unique solution "
            "without a penalty: use 1e-4 for a weak one."
        )
    x, y = inputs.double(), targets.double()
    centre, middle = x.mean(0), y.mean()
    deviations = x - centre
    values, vectors = torch.linalg.eigh(deviations.T @ deviations / len(x))
    along = vectors.T @ (deviations.T @ (y - middle) / len(x))
    heads: list[LinearHead] = []
    for l2 in penalties:
        weight = vectors @ (along / (values.clamp(min=0) + l2))
        heads.append(LinearHead(weight=weight[:, None], bias=(middle - centre @ weight)[None]))
    return tuple(heads)
