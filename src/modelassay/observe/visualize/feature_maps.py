"""Layers of a vision model: their shapes, and their outputs with gradients to the images."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, UnknownNameError, UnsupportedModelError
from modelassay.subjects.hooks import Flags, Port, Stop, Visitor, visiting


def feature_maps(
    module: nn.Module, layers: Sequence[str], inputs: Float[Tensor, "n c h w"]
) -> dict[str, Float[Tensor, "n _channel _row _column"]]:
    """The outputs of some modules; the model stops after the last of them.

    An output ``[n, channel]`` has one row and one column, one ``[n, token, channel]`` has its
    tokens as rows. Gradients flow to `inputs`. Where a rectifier overwrites a layer's output, what
    is returned is the output from before.

    Args:
        module: any module that takes images as its first argument.
        layers: paths of modules, as `named_modules` has them; "path:in" is what enters one.
        inputs: what the model reads: normalised images.

    Raises:
        UnknownNameError: if the model has no such module.
        UnsupportedModelError: if a layer does not run, or gives no tensor.
    """
    found: dict[str, Tensor] = {}
    wanted = set(layers)

    def keep(layer: str) -> Visitor:
        def visit(value: Tensor) -> Tensor:
            # A rectifier that works in place comes after all but the last layer.
            last = len(found) + 1 == len(wanted)
            found[layer] = value if last else value.clone()
            if last:
                raise Stop
            return value

        return visit

    parts = dict(module.named_modules(remove_duplicate=False))
    visitors = [(layer_port(parts, layer), keep(layer)) for layer in wanted]
    with Flags.of(module).evaluating(), visiting(parts, visitors), suppress(Stop):
        module(inputs)
    for layer in wanted - found.keys():
        raise UnsupportedModelError(
            f"A layer must run when the model does; got {layer!r}, which did not. "
            "Name a module that takes part in the forward pass."
        )
    return {layer: _as_map(layer, found[layer]) for layer in layers}


@torch.no_grad()
def layer_shapes(
    module: nn.Module, layers: Sequence[str], inputs: Float[Tensor, "n c h w"]
) -> dict[str, tuple[int, int, int]]:
    """Channels, rows and columns of some layers, from one whole pass through the model.

    Raises:
        UnknownNameError: if the model has no such module.
        UnsupportedModelError: if a layer runs never or more than once, or gives no tensor.
        ShapeError: if the model cannot take such images.
    """
    shapes: dict[str, tuple[int, int, int]] = {}
    runs = dict.fromkeys(layers, 0)

    def note(layer: str) -> Visitor:
        def visit(value: Tensor) -> Tensor:
            runs[layer] += 1
            _, channels, rows, columns = _as_map(layer, value).shape
            shapes[layer] = (channels, rows, columns)
            return value

        return visit

    parts = dict(module.named_modules(remove_duplicate=False))
    visitors = [(layer_port(parts, layer), note(layer)) for layer in runs]
    with Flags.of(module).evaluating(), visiting(parts, visitors):
        try:
            module(inputs)
        except (RuntimeError, ValueError) as error:
            raise ShapeError(
                f"The model must run on images of {list(inputs.shape)}; got: "
                f"{str(error).splitlines()[0]}. Set ImageInput's size and channels to the model's."
            ) from error
    for layer, count in runs.items():
        if count != 1:
            raise UnsupportedModelError(
                f"A layer must run once in a forward pass; got {layer!r}, which ran {count} times. "
                "Name the module around it."
            )
    return shapes


def layer_port(parts: Mapping[str, nn.Module], layer: str) -> Port:
    """Where a layer named as in `feature_maps` is read.

    Raises:
        UnknownNameError: if the model has no such module, or the end is neither in nor out.
    """
    path, _, end = layer.partition(":")
    if path not in parts or not path:
        raise UnknownNameError("A layer", path, [name for name in parts if name])
    if end not in ("", "in", "out"):
        raise UnknownNameError("End of a layer", end, ("in", "out"))
    side: Literal["in", "out"] = "in" if end == "in" else "out"
    return Port(path, side)


def _as_map(layer: str, value: Tensor) -> Tensor:
    """The activation as ``[n, channel, row, column]``."""
    if value.ndim == 4:
        return value
    if value.ndim == 3:
        return value.transpose(1, 2).unsqueeze(3)
    if value.ndim == 2:
        return value[:, :, None, None]
    raise UnsupportedModelError(
        "A layer's output must be [n, channel], [n, token, channel] or [n, channel, row, column]; "
        f"got {list(value.shape)} at {layer!r}. Name another layer."
    )
