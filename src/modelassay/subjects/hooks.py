"""The only place where a model is touched: hooks that visit tensors and never outlive a call.

A `Visitor` gets a tensor as it passes a `Port` and returns the tensor that goes on. Reading,
editing and stopping are all visitors, so there is one mechanism for the three of them.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Visitor = Callable[[Tensor], Tensor]


class Stop(BaseException):
    """Ends a forward pass early.

    Not an `Exception`, so that a model's own ``except Exception`` cannot swallow it.
    """


@dataclass(frozen=True, slots=True)
class Port:
    """One tensor that enters or leaves a module."""

    path: str
    """Path of the module inside the model."""
    end: Literal["in", "out", "softmax"]
    """The module's arguments, its result, or the result of the softmax that it computes."""
    item: int | None = None
    """Position in a tuple that the module returns; None for the first tensor."""
    trailing: tuple[int, ...] | None = None
    """Axes after batch and token, where a model flattens or splits them; None: as they come."""


def first_tensor(values: Any) -> Tensor | None:
    """The tensor itself, or the first tensor in a tuple, list or mapping."""
    if isinstance(values, Tensor):
        return values
    if isinstance(values, Mapping):
        values = values.values()
    if isinstance(values, Iterable):
        return next((value for value in values if isinstance(value, Tensor)), None)
    return None


def visit_tensor(values: Any, visit: Visitor, item: int | None = None) -> Any:
    """`values` with its first tensor (or the tensor at `item`) as `visit` returns it."""
    if isinstance(values, Tensor):
        return visit(values)
    keys = list(values) if isinstance(values, Mapping) else range(len(values))
    key = next((key for key in keys if isinstance(values[key], Tensor)), None)
    key = key if item is None else item
    if key is None or not isinstance(values[key], Tensor):
        return values
    seen = visit(values[key])
    if seen is values[key]:
        return values
    if isinstance(values, Mapping):
        changed = dict(values)
        changed[key] = seen
        return type(values)(**changed)
    # A named tuple is rebuilt by its own constructor, which takes the items one by one.
    return getattr(type(values), "_make", type(values))(
        [seen if position == key else value for position, value in enumerate(values)]
    )


@contextmanager
def visiting(
    parts: Mapping[str, nn.Module], visitors: Sequence[tuple[Port, Visitor]]
) -> Generator[None, None, None]:
    """Let visitors see a model's tensors for as long as the context lasts.

    `parts` are the model's modules by path. Visitors of one port act in the order given, and
    before hooks that others registered: what these collect (as `transformers` does for
    ``hidden_states``) shows our edits.
    """
    with ExitStack() as stack:
        # Each hook goes to the front of its module's list, so the last one is registered first.
        for port, visit in reversed(visitors):
            target = parts[port.path]
            if port.end == "in":
                handle = target.register_forward_pre_hook(
                    _before(visit), prepend=True, with_kwargs=True
                )
            elif port.end == "out":
                handle = target.register_forward_hook(_after(visit, port.item), prepend=True)
            else:
                mode = stack.enter_context(_SoftmaxVisits(visit))
                handle = target.register_forward_pre_hook(mode.enable, prepend=True)
                stack.callback(handle.remove)
                handle = target.register_forward_hook(mode.disable, prepend=True)
            stack.callback(handle.remove)
        yield


@contextmanager
def skipping(blocks: Sequence[nn.Module], result: Any) -> Generator[None, None, None]:
    """Let blocks return `result` without computing; their hooks still run."""
    before = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = lambda *_args, **_options: result
        yield
    finally:
        for block, forward in zip(blocks, before, strict=True):
            block.__dict__.pop("forward", None)
            if forward is not None:
                block.forward = forward


@dataclass(frozen=True, slots=True)
class Flags:
    """A model's switches between training and evaluation, and between attention kernels.

    Collected once, because walking the modules of a small model costs as much as a block.
    """

    parts: tuple[nn.Module, ...]
    """The model and all modules in it."""
    configs: tuple[Any, ...]
    """Configurations that name an attention implementation."""

    @staticmethod
    def of(module: nn.Module) -> "Flags":
        """The switches of a model."""
        parts = tuple(module.modules())
        configs = (part.__dict__.get("config") for part in parts)
        chosen = {id(c): c for c in configs if getattr(c, "_attn_implementation", None)}
        return Flags(parts, tuple(chosen.values()))

    @contextmanager
    def evaluating(self) -> Generator[None, None, None]:
        """No dropout, and eager attention, which alone computes weights; restored afterwards."""
        training = [part for part in self.parts if part.training]
        others = [(c, c._attn_implementation) for c in self.configs]
        others = [(config, chosen) for config, chosen in others if chosen != "eager"]
        try:
            for part in training:
                part.training = False
            for config, _ in others:
                config._attn_implementation = "eager"
            yield
        finally:
            for part in training:
                part.training = True
            for config, chosen in others:
                config._attn_implementation = chosen


def _before(visit: Visitor) -> Callable[..., tuple[Any, Any] | None]:
    def hook(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if first_tensor(args) is not None:
            return visit_tensor(args, visit), options
        return args, visit_tensor(options, visit)

    return hook


def _after(visit: Visitor, item: int | None) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        return visit_tensor(output, visit, item)

    return hook


class _SoftmaxVisits(TorchFunctionMode):
    """Shows a visitor the attention weights where eager attention computes them.

    A module's hooks see the weights only after they were used; an edit must come before.
    """

    def __init__(self, visit: Visitor) -> None:
        super().__init__()
        self.visit = visit
        self.enabled = False

    def enable(self, *_: Any) -> None:
        self.enabled = True

    def disable(self, *_: Any) -> None:
        self.enabled = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.enabled and func in (functional.softmax, torch.softmax, Tensor.softmax):
            return self.visit(result)
        return result
