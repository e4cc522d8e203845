"""A network without its nonlinearities: rectifiers let everything pass, maxima become means."""

from collections.abc import Callable
from typing import Any, final

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PASSED: frozenset[str] = frozenset(
    ("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "prelu",
     "rrelu", "rrelu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "gelu", "silu", "mish",
     "hardswish", "hardsigmoid", "softplus", "tanh", "tanh_", "sigmoid", "sigmoid_", "dropout",
     "alpha_dropout", "feature_dropout")
)  # fmt: skip


@final
class Linearised(TorchFunctionMode):
    """While this context lasts, rectifiers and their kin are the identity, and maxima means.

    Max pooling becomes average pooling over the same windows, of which only pixels inside the map
    count. It sees modules and functions alike, in place or not, but nothing inside compiled or
    scripted functions; other nonlinear functions are left as they are, and so is the bias of
    convolutions: take the difference from the response to zeros.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced: dict[str, int] = {}
        """Function -> calls that were replaced."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        """Replace a nonlinear function; everything else stays as it is."""
        options = kwargs or {}
        name: str = getattr(func, "__name__", "")
        if name in _PASSED:
            self._count(name)
            x: Tensor = args[0] if args else options["input"]
            return x
        if name in _POOLING:
            self._count(name)
            return _POOLING[name](*args, **options)
        return func(*args, **options)

    def _count(self, name: str) -> None:
        self.replaced[name] = self.replaced.get(name, 0) + 1


def _mean_pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    if dilation not in (1, (1, 1), [1, 1]) or return_indices:
        raise NotImplementedError("dilated max pooling and max pooling with indices")
    return F.avg_pool2d(
        input, kernel_size, stride or kernel_size, padding, ceil_mode, count_include_pad=False
    )


def _adaptive_mean(input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
    if return_indices:
        raise NotImplementedError("max pooling with indices")
    return F.adaptive_avg_pool2d(input, output_size)


_POOLING: dict[str, Callable[..., Tensor]] = {
    "max_pool2d": _mean_pool,
    "adaptive_max_pool2d": _adaptive_mean,
}
