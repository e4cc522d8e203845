"""What an implementation of the sparse kernels must do, and which one is used."""

import importlib.util
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import MissingExtraError, UnknownNameError
from modelassay.decompositions.kernels_torch import TORCH

IMPLEMENTATIONS = ("torch", "triton")


@runtime_checkable
class Kernels(Protocol):
    """The primitive operations that all sparse encoding, decoding and their gradients are made of.

    None of them is differentiable; `kernels` makes differentiable functions of them. Products
    accumulate in float32 where the inputs are less precise. Selections come as slots or as bags
    (see `bags`): ``*selected`` is ``token slot`` or ``entry``, and `offsets` is None for slots.
    """

    def topk(
        self, pre: Float[Tensor, "token width"], k: int
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """The k largest entries of every row, in no particular order; all if k exceeds the width.

        Ties are broken arbitrarily.
        """
        ...

    def group_max(
        self, pre: Float[Tensor, "token width"], k: int
    ) -> tuple[Float[Tensor, "token {k}"], Int[Tensor, "token {k}"]]:
        """The largest entry of each of k groups of consecutive columns; k divides the width."""
        ...

    def above(
        self,
        pre: Float[Tensor, "token width"],
        bound: float | Float[Tensor, ""] | Float[Tensor, " width"],
    ) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]:
        """All entries greater than a bound, as bags with ascending columns."""
        ...

    def keep_largest(
        self,
        values: Float[Tensor, " entry"],
        indices: Int[Tensor, " entry"],
        offsets: Int[Tensor, " token"],
        *,
        count: int,
    ) -> tuple[Float[Tensor, " kept"], Int[Tensor, " kept"], Int[Tensor, " token"]]:
        """The `count` largest entries of some bags, still as bags of the same tokens."""
        ...

    def weighted_sum(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"],
        rows: Float[Tensor, "width d"],
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "token d"]:
        """``codes @ rows``: for every token, the rows of its latents weighted by their values."""
        ...

    def sampled_products(
        self,
        left: Float[Tensor, "token d"],
        rows: Float[Tensor, "width d"],
        indices: Int[Tensor, "*selected"],
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "*selected"]:
        """``left @ rows.T`` at the selected places only: dot products of tokens and latents."""
        ...

    def sum_by_latent(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"],
        rows: Float[Tensor, "token d"],
        width: int,
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "{width} d"]:
        """``codes.T @ rows``: for every latent, its tokens' rows weighted by its values."""
        ...


_chosen: ContextVar[Kernels | None] = ContextVar("chosen_kernels", default=None)


def kernels_for(device: torch.device) -> Kernels:
    """The implementation for tensors on a device.

    The one that `using_kernels` names; else Triton's on CUDA where Triton is installed, and plain
    PyTorch's everywhere else.
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        return _named("triton")
    return TORCH


@contextmanager
def using_kernels(implementation: str) -> Generator[Kernels]:
    """Inside the ``with`` block, and in this thread only, use one implementation on all devices.

    Backward passes use what their forward pass used.

    Args:
        implementation: one of `IMPLEMENTATIONS`.

    Raises:
        UnknownNameError: if there is no such implementation.
        MissingExtraError: for Triton's, if Triton is not installed.
    """
    kernels = _named(implementation)
    token = _chosen.set(kernels)
    try:
        yield kernels
    finally:
        _chosen.reset(token)


def _named(implementation: str) -> Kernels:
    if implementation == "torch":
        return TORCH
    if implementation == "triton":
        try:
            from modelassay.decompositions.kernels_triton import TRITON
        except ModuleNotFoundError as error:
            raise MissingExtraError("triton", "triton") from error
        return TRITON
    raise UnknownNameError("The implementation of the kernels", implementation, IMPLEMENTATIONS)
