"""A model run without its nonlinearities from one feature map to another, in float64."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import (
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.observe.circuits.linearised import Linearised
from modelassay.subjects.hooks import Flags, Port, Stop, Visitor, visiting

INPUT = "input"
"""The name of the model's input, as a source."""
_TOGETHER = 16  # kernels in one pass
_WEIGHTED = ("ConvolutionBackward", "AddmmBackward", "MmBackward", "BmmBackward")
_TOLERANCE = 1e-6  # of linearity, in float64, where rounding is below 1e-12 (ours)

Box = tuple[int, int, int, int]
"""First row, last row and one, first column, last column and one."""


@final
class LinearRun:
    """The linearised network from a source to a target, for inputs of one shape.

    Raises:
        UnknownNameError: if the model has no such module.
        ValueRangeError: if the target is the source or the input.
    """

    def __init__(
        self, module: nn.Module, source: str, target: str, shape: tuple[int, int, int]
    ) -> None:
        self.module, self.source, self.target, self.shape = module, source, target, shape
        self.parts = dict(module.named_modules(remove_duplicate=False))
        for name in (source, target):
            if name != INPUT and (name not in self.parts or not name):
                known = [INPUT, *(part for part in self.parts if part)]
                raise UnknownNameError("A layer", name, known)
        if target in (source, INPUT):
            raise ValueRangeError(
                f"The target must come after the source; got {source!r} to {target!r}. Name a "
                "later layer as target."
            )
        parameters = dict(module.named_parameters())
        state = {**parameters, **dict(module.named_buffers())}
        self.state = {
            name: tensor.detach().double() if tensor.is_floating_point() else tensor
            for name, tensor in state.items()
        }
        # With positive weights nothing cancels: what is not reached lies outside the field.
        self.ones = {
            name: torch.ones_like(tensor) if name in parameters else tensor
            for name, tensor in self.state.items()
        }
        self.device = next(module.parameters(), torch.empty(0)).device
        self.layers = 0
        """Convolutions and products with weights on the longest way."""
        self.replaced: Mapping[str, int] = {}
        """Function -> calls that the last run replaced."""

    def receptive_field(self) -> Box | None:
        """The box that the target's middle units see in the source; None if it touches the edge.

        Of all channels together: branches that are concatenated may see different boxes.
        """
        reached = self._gradients(self._start(), None, self.ones)
        seen = reached[0].abs().sum(0) > 0
        rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1
        height, width = seen.shape
        whole = (height, width) == (1, 1)
        if not whole and (top == 0 or left == 0 or bottom == height or right == width):
            return None
        return top, bottom, left, right

    def kernels(
        self, box: Box, channels: Sequence[int] | None
    ) -> tuple[tuple[int, ...], Float[Tensor, "out in row column"]]:
        """The channels that were chosen, and their gradients in the box.

        Raises:
            ValueRangeError: if the target has no such channel.
            UnsupportedModelError: if the way is not linear.
        """
        start = self._start()
        self._check_linear(start)
        width = self._pass(start, self.state).shape[1]
        chosen = tuple(range(width)) if channels is None else tuple(channels)
        for channel in chosen:
            if not 0 <= channel < width:
                raise ValueRangeError(
                    f"A channel of {self.target!r} must be in 0 … {width - 1}; got {channel}. "
                    "Choose another."
                )
        top, bottom, left, right = box
        found: list[Tensor] = []
        for first in range(0, len(chosen), _TOGETHER):
            some = list(chosen[first : first + _TOGETHER])
            starts = start.expand(len(some), -1, -1, -1)
            found.append(self._gradients(starts, some, self.state)[:, :, top:bottom, left:right])
        return chosen, torch.cat(found).float()

    @torch.no_grad()
    def response(
        self, maps: Float[Tensor, "n channel row column"]
    ) -> Float[Tensor, "n _channel _row _column"]:
        """The target's map for given maps of the source, less that for zeros.

        Raises:
            UnsupportedModelError: if the way is not linear.
        """
        start = self._start()
        self._check_linear(start)
        zero = self._pass(start, self.state)
        return (self._pass(maps.double(), self.state) - zero).to(maps.dtype)

    def _images(self, batch: int) -> Tensor:
        return torch.zeros(batch, *self.shape, dtype=torch.float64, device=self.device)

    def _start(self) -> Tensor:
        """One map of zeros with the source's shape."""
        if self.source == INPUT:
            return self._images(1)
        found: list[Tensor] = []

        def keep(value: Tensor) -> Tensor:
            found.append(value)
            raise Stop

        self._call(self._images(1), [(Port(self.source, "out"), keep)], self.state)
        if not found:
            raise _not_run(self.source)
        return _as_map(self.source, torch.zeros_like(found[0]))

    def _pass(self, start: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """The target's map when the source's is `start`."""
        found: list[Tensor] = []

        def give(value: Tensor) -> Tensor:
            return start.reshape(len(start), *value.shape[1:])

        def take(value: Tensor) -> Tensor:
            found.append(value)
            raise Stop

        visitors: list[tuple[Port, Visitor]] = [(Port(self.target, "out"), take)]
        images = start
        if self.source != INPUT:
            visitors.insert(0, (Port(self.source, "out"), give))
            images = self._images(len(start))
        self._call(images, visitors, state)
        if not found:
            raise _not_run(self.target)
        return _as_map(self.target, found[0])

    def _gradients(
        self, starts: Tensor, channels: list[int] | None, state: Mapping[str, Tensor]
    ) -> Tensor:
        """For each start the gradient of one channel (or all) in the middle of the target."""
        with torch.enable_grad():
            starts = starts.clone().requires_grad_()
            target = self._pass(starts, state)
            rows, columns = target.shape[2:]
            units = target[:, :, rows // 2, columns // 2]
            if channels is not None:
                units = units[range(len(channels)), channels]
            gradient = None
            if units.requires_grad:
                self.layers = _depth(units.grad_fn, {})
                (gradient,) = torch.autograd.grad(units.sum(), starts, allow_unused=True)
        if gradient is None:
            raise UnsupportedModelError(
                f"Something must lead from the source to the target; got none from "
                f"{self.source!r} to {self.target!r}. Name layers of which one feeds the other."
            )
        return gradient

    def _check_linear(self, start: Tensor) -> None:
        """What `Linearised` does not know would make the weights depend on the activations."""
        drawn = generator(0)
        first, second = (
            torch.randn(start.shape, generator=drawn, dtype=torch.float64).to(self.device)
            for _ in range(2)
        )
        zero, one, two, mixed = (
            self._pass(x, self.state) for x in (start, first, second, first - 3 * second)
        )
        expected = (one - zero) - 3 * (two - zero)
        error = float((mixed - zero - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
        if not error <= _TOLERANCE:
            raise UnsupportedModelError(
                f"Layers between {self.source!r} and {self.target!r} must be linear once "
                f"rectifiers and maxima are replaced; got a relative deviation of {error:.2g}: a "
                "normalisation or a product lies between. Name layers without it."
            )

    def _call(
        self,
        images: Tensor,
        visitors: list[tuple[Port, Visitor]],
        state: Mapping[str, Tensor],
    ) -> None:
        mode = Linearised()
        flags = Flags.of(self.module)
        with flags.evaluating(), visiting(self.parts, visitors), suppress(Stop), mode:
            try:
                torch.func.functional_call(self.module, dict(state), (images,))
            except (RuntimeError, ValueError, NotImplementedError) as error:
                raise ShapeError(
                    f"The model must run on an input of {list(images.shape)} when linear; got: "
                    f"{str(error).splitlines()[0]}. Pass n_inputs and size as the model needs them."
                ) from error
            finally:
                self.replaced = mode.replaced


def _depth(node: Any, known: dict[Any, int]) -> int:
    """Nodes with weights on the longest way from a node of the graph of gradients to its leaves."""
    stack = [node]
    while stack:
        last = stack[-1]
        before = [following for following, _ in last.next_functions if following is not None]
        waiting = [each for each in before if each not in known]
        if waiting:
            stack += waiting
            continue
        own = int(last.name().startswith(_WEIGHTED))
        known[stack.pop()] = own + max((known[each] for each in before), default=0)
    return known[node]


def _not_run(layer: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"A layer must run when the model does; got {layer!r}, which did not run, or only after "
        "the target. Name a module that takes part, and the earlier one as source."
    )


def _as_map(layer: str, value: Tensor) -> Tensor:
    if value.ndim == 2:
        return value[:, :, None, None]
    if value.ndim != 4:
        raise UnsupportedModelError(
            "A layer of a circuit must give [n, channel, row, column] or [n, channel]; got "
            f"{list(value.shape)} at {layer!r}. Circuits are those of convolutional networks."
        )
    return value
