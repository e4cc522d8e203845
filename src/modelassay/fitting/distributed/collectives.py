"""Sums and exchanges between processes, and their gradients.

A process that waits for one that has ended raises `WorkerError`; it never goes on with a part.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelassay.core.errors import WorkerError


@contextmanager
def _named_failures() -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise WorkerError(
            f"All processes must take part in every step; got from one of them: {first}. "
            "Look at the error of the process that ended first; then go on with --resume."
        ) from error


def size(group: dist.ProcessGroup) -> int:
    """Processes of a group."""
    return dist.get_world_size(group)


def sum_(tensor: Shaped[Tensor, "*shape"], group: dist.ProcessGroup) -> Shaped[Tensor, "*shape"]:
    """The sum over the group, written into the tensor."""
    return _reduce(tensor, group, dist.ReduceOp.SUM)


def least_(tensor: Shaped[Tensor, "*shape"], group: dist.ProcessGroup) -> Shaped[Tensor, "*shape"]:
    """The least over the group, entry by entry, written into the tensor."""
    return _reduce(tensor, group, dist.ReduceOp.MIN)


def _reduce(tensor: Tensor, group: dist.ProcessGroup, operation: Any) -> Tensor:
    if size(group) == 1:
        return tensor
    # Encoders lie in memory column by column; what is exchanged must be contiguous.
    flat = tensor if tensor.is_contiguous() else tensor.t()
    assert flat.is_contiguous()
    with _named_failures():
        dist.all_reduce(flat, operation, group=group)
    return tensor


def gathered(
    tensor: Shaped[Tensor, "..."], group: dist.ProcessGroup
) -> Shaped[Tensor, "process ..."]:
    """The tensors of all processes of the group, which have one shape, in order."""
    if size(group) == 1:
        return tensor.unsqueeze(0)
    found = tensor.new_empty(size(group), *tensor.shape)
    with _named_failures():
        dist.all_gather(list(found.unbind()), tensor.contiguous(), group)
    return found


def gathered_texts(text: str, group: dist.ProcessGroup, device: torch.device) -> list[str]:
    """The texts of all processes of the group, in order."""
    payload = torch.frombuffer(bytearray(text.encode()) or bytearray(1), dtype=torch.uint8)
    length = torch.tensor([len(text.encode())], device=device)
    lengths = gathered(length, group).flatten().tolist()
    padded = torch.zeros(max(1, *lengths), dtype=torch.uint8)
    padded[: len(payload)] = payload[: len(padded)]
    rows = gathered(padded.to(device), group).cpu()
    return [bytes(row[:n].tolist()).decode() for row, n in zip(rows, lengths, strict=True)]


def sum_values(
    partial: Float[Tensor, "*shape"], group: dist.ProcessGroup
) -> Float[Tensor, "*shape"]:
    """The sum of all processes' parts, of which each process gets the gradient of its own.

    For a sum that every process goes on with in the same way: the gradient of the sum is then
    the same everywhere, and is that of each part.
    """
    return partial if size(group) == 1 else _SumValues.apply(partial, group)


def sum_gradients(
    shared: Float[Tensor, "*shape"], group: dist.ProcessGroup
) -> Float[Tensor, "*shape"]:
    """The same value, whose gradient is the sum of those of all processes.

    For a parameter that every process has whole and uses for a part of the result.
    """
    return shared if size(group) == 1 else _SumGradients.apply(shared, group)


class _SumValues(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial: Tensor, group: dist.ProcessGroup) -> Tensor:
        del ctx
        return sum_(partial.clone(memory_format=torch.contiguous_format), group)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        del ctx
        return grad_outputs[0], None


class _SumGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shared: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return shared.view_as(shared)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        return sum_(grad_outputs[0].contiguous().clone(), ctx.group), None


def counts_before(count: Int[Tensor, "*shape"], group: dist.ProcessGroup) -> Int[Tensor, "*shape"]:
    """The sum of the counts of the processes that come before this one in the group."""
    return gathered(count, group)[: dist.get_rank(group)].sum(0)
