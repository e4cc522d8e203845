"""Gradients that pass rectifiers which are closed everywhere, so that a dead start can be left.

At the start of an optimisation a unit may be silent on the whole image. All its gradients are zero
then, and nothing would ever move. For the first few steps lucid lets those gradients pass that
would open the rectifier: only where an image's whole gradient at that rectifier is zero.
"""

from collections.abc import Callable
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

_RELU: tuple[Callable[..., Any], ...] = (F.relu, torch.relu, Tensor.relu)
_IN_PLACE: tuple[Callable[..., Any], ...] = (torch.relu_, Tensor.relu_)


@final
class Redirected(torch.autograd.Function):
    """``min(max(x, 0), ceiling)``, whose gradient never vanishes for a whole image."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ceiling: float) -> Tensor:
        """The rectifier's own values."""
        # Masks instead of x, which the model may overwrite.
        ctx.save_for_backward(x <= 0, x >= ceiling)
        return x.clamp(0, ceiling)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The rectifier's gradient; where it is zero for a whole image, the redirected one.

        The gradient is that of a loss, so that a negative one asks for a larger x.
        """
        (gradient,) = gradients
        closed, full = ctx.saved_tensors
        usual = gradient.masked_fill(closed | full, 0)
        away = (closed & (gradient > 0)) | (full & (gradient < 0))
        stuck = (usual.flatten(1) == 0).all(1).view(-1, *[1] * (gradient.ndim - 1))
        return torch.where(stuck, gradient.masked_fill(away, 0), usual), None


@final
class RedirectedRelu(TorchFunctionMode):
    """While this context lasts, ReLU and ReLU6 have redirected gradients.

    It sees modules and functions alike, in place or not. It does not see a rectifier inside a
    compiled or scripted function, nor one that is written as `clamp` or `maximum`: `count` says
    how many were redirected.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        """Replace a rectifier; everything else stays as it is."""
        options = kwargs or {}
        if func in _RELU or func in _IN_PLACE:
            in_place = func in _IN_PLACE or _argument(args, options, 1, "inplace", False)
            return self._replace(args, options, float("inf"), in_place)
        if func is F.relu6:
            return self._replace(args, options, 6.0, _argument(args, options, 1, "inplace", False))
        if func is F.hardtanh and _argument(args, options, 1, "min_val", -1.0) == 0:
            ceiling = float(_argument(args, options, 2, "max_val", 1.0))
            return self._replace(
                args, options, ceiling, _argument(args, options, 3, "inplace", False)
            )
        return func(*args, **options)

    def _replace(self, args: Any, options: Any, ceiling: float, in_place: bool) -> Tensor:
        x: Tensor = _argument(args, options, 0, "input", None)
        self.count += 1
        result: Any = Redirected.apply(x, ceiling)
        # A model that calls a rectifier in place may go on with the argument, not the result.
        return x.copy_(result) if in_place else result


def _argument(args: Any, options: Any, position: int, name: str, default: Any) -> Any:
    return args[position] if len(args) > position else options.get(name, default)


def rectified(x: Float[Tensor, "*shape"], ceiling: float = float("inf")) -> Float[Tensor, "*shape"]:
    """A rectifier with redirected gradients, to build into a model of one's own."""
    result: Any = Redirected.apply(x, ceiling)
    return result
