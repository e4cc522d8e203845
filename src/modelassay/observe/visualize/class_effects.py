"""What a position's activation does to a classifier's logits, to first order.

``effect[class] = a · (d logit[class] / d a)`` for the activation vector a of one position: how much
each logit would fall if the position went to zero, were the rest of the network linear there. All
classes come out of one forward and two backward passes: a gradient is linear in what it is the
gradient of, and its own derivative in that is the Jacobian's product with a.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import UnsupportedModelError
from modelassay.observe.visualize.feature_maps import layer_port
from modelassay.observe.visualize.receptive_fields import Position
from modelassay.subjects.hooks import Flags, visiting


def class_effects(
    module: nn.Module,
    layer: str,
    inputs: Float[Tensor, "n c h w"],
    positions: Sequence[Position],
) -> Float[Tensor, "n class"]:
    """The effect of one position of each image on all logits.

    Args:
        module: a classifier whose result is ``[n, class]``, or has it as `logits`.
        layer: path of a module, as in `feature_maps`.
        inputs: what the model reads.
        positions: one for each image.

    Raises:
        UnknownNameError: if there is no such layer.
        UnsupportedModelError: if the model gives no logits, if they do not depend on the layer, or
            if an operation has no second derivative.
    """
    seen: list[Tensor] = []

    def watch(value: Tensor) -> Tensor:
        seen.append(value.detach().requires_grad_())
        # A copy goes on: a rectifier that works in place would overwrite what is differentiated.
        return seen[0].clone()

    parts = dict(module.named_modules(remove_duplicate=False))
    visitors = [(layer_port(parts, layer), watch)]
    with torch.enable_grad(), Flags.of(module).evaluating(), visiting(parts, visitors):
        logits = logits_of(module(inputs))
        if not seen or not logits.requires_grad:
            raise _independent(layer)
        try:
            weights = torch.zeros_like(logits, requires_grad=True)
            slopes: Any = torch.autograd.grad(
                logits, seen[0], weights, create_graph=True, allow_unused=True
            )
            slope: Tensor | None = slopes[0]
            if slope is None:
                raise _independent(layer)
            product = (slope * _only_at(seen[0].detach(), positions)).sum()
            if not product.requires_grad:
                raise _independent(layer)
            (effects,) = torch.autograd.grad(product, weights)
        except RuntimeError as error:
            raise UnsupportedModelError(
                "Every operation after a layer must have a second derivative to give effects on "
                f"classes; got: {str(error).splitlines()[0]}. Leave the classes out."
            ) from error
    return effects.detach()


def _independent(layer: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Logits must depend on the layer; got {layer!r}, from which no derivative comes. "
        "Name another layer, or leave the classes out."
    )


def _only_at(value: Tensor, positions: Sequence[Position]) -> Tensor:
    """The activations of one position of each image; 0 everywhere else."""
    kept = torch.zeros_like(value)
    for index, (row, column) in enumerate(positions):
        places = {4: (index, slice(None), row, column), 3: (index, row)}
        place = places.get(value.ndim, (index,))
        kept[place] = value[place]
    return kept


def logits_of(output: object) -> Float[Tensor, "n class"]:
    """The logits in what a model returns.

    Raises:
        UnsupportedModelError: if there are none.
    """
    found = getattr(output, "logits", output)
    if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] < 2:
        kind = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UnsupportedModelError(
            f"A classifier must return logits [n, class], or hold them as `logits`; got {kind}. "
            "Leave the classes out."
        )
    return found
