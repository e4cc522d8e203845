"""The one scale at which all training happens."""

import math

from modelassay.activations.statistics import Moments
from modelassay.core.errors import NonFiniteError, ValueRangeError


def input_scale(moments: Moments) -> float:
    """The factor with which activations have a mean norm of sqrt(width).

    At this scale one learning rate and one sparsity coefficient fit all sites and models.
    `Dictionary.fold_input_scale` takes it out again after training, exactly.

    Raises:
        NonFiniteError: if there is a NaN or an infinity among them.
        ValueRangeError: if all of them are zero.

    Reference:
        Conerly et al. 2024, "Circuits updates: April", "Update on how we train SAEs".
    """
    if not math.isfinite(moments.mean_norm):
        raise NonFiniteError(
            f"Activations must be finite; got a mean norm of {moments.mean_norm}. "
            "Look for an overflow in the model: run it in float32."
        )
    if moments.mean_norm <= 0:
        raise ValueRangeError(
            "Activations must not all be zero; got a mean norm of 0. Choose another site."
        )
    return math.sqrt(len(moments.mean)) / moments.mean_norm
