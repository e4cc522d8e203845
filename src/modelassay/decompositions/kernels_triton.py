"""The sparse kernels in Triton, for accelerators that Triton supports.

The encoder's product stays that of PyTorch. What follows it is done in one or two launches a piece,
in the order of the entries and without atomic additions, so that the same input gives the same
bits. Their results are tested, interpreted; their speed has not been measured.
"""

from typing import Any, final

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions import kernels_triton_programs as programs
from modelassay.decompositions.bags import offsets_of, offsets_of_slots, rows_of
from modelassay.decompositions.kernels_torch import TORCH

_ENTRIES = 16  # entries of a bag that a program takes at once: ours, not measured
_MOST_COLUMNS = 256  # columns of a tile of rows: ours, not measured
_MOST_PRE_COLUMNS = 2048  # pre-activations that a program takes at once: ours, not measured


@final
class TritonKernels:
    """See `kernels_interface.Kernels`.

    The two operations that read no more than what was selected already are plain PyTorch's.

    Raises:
        ValueRangeError: by every method, for tensors that are not on an accelerator, unless
            Triton interprets its programs (``TRITON_INTERPRET=1``).
    """

    def topk(
        self, pre: Float[Tensor, "token width"], k: int
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """The k largest entries of every row; the first of those that tie."""
        n_tokens, width = pre.shape
        k = min(k, width)
        values = pre.new_empty(n_tokens, k)
        latents = torch.empty(n_tokens, k, dtype=torch.int64, device=pre.device)
        if values.numel():
            pre = _with_contiguous_rows(pre)
            _run(
                programs.topk_program,
                (n_tokens,),
                *(pre, values, latents, width, k, pre.stride(0)),
                COLUMNS=_block(width, _MOST_PRE_COLUMNS),
            )
        return values, latents

    def group_max(
        self, pre: Float[Tensor, "token width"], k: int
    ) -> tuple[Float[Tensor, "token {k}"], Int[Tensor, "token {k}"]]:
        """The largest entry of each of k groups of consecutive columns."""
        return TORCH.group_max(pre, k)

    def above(
        self,
        pre: Float[Tensor, "token width"],
        bound: float | Float[Tensor, ""] | Float[Tensor, " width"],
    ) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]:
        """All entries greater than a bound, as bags: counted first, then collected."""
        n_tokens, width = pre.shape
        bounds = torch.as_tensor(bound, device=pre.device)
        # One bound for all columns is compared in the type of the pre-activations.
        bounds = bounds.contiguous() if bounds.ndim else bounds.to(pre.dtype)
        pre = _with_contiguous_rows(pre)
        sizes = (width, pre.stride(0), bounds.ndim)
        columns = _block(width, _MOST_PRE_COLUMNS)
        starts = torch.zeros(n_tokens + 1, dtype=torch.int64, device=pre.device)
        if n_tokens:
            arguments = (pre, bounds, starts[1:], *sizes)
            _run(programs.count_above_program, (n_tokens,), *arguments, COLUMNS=columns)
        starts = starts.cumsum(0)
        values = pre.new_empty(int(starts[-1]))
        latents = starts.new_empty(values.numel())
        if values.numel():
            arguments = (pre, bounds, starts, values, latents, *sizes)
            _run(programs.collect_above_program, (n_tokens,), *arguments, COLUMNS=columns)
        return values, latents, starts[:-1]

    def keep_largest(
        self,
        values: Float[Tensor, " entry"],
        indices: Int[Tensor, " entry"],
        offsets: Int[Tensor, " token"],
        *,
        count: int,
    ) -> tuple[Float[Tensor, " kept"], Int[Tensor, " kept"], Int[Tensor, " token"]]:
        """The `count` largest entries of some bags, still as bags of the same tokens."""
        return TORCH.keep_largest(values, indices, offsets, count=count)

    def weighted_sum(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"],
        rows: Float[Tensor, "width d"],
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "token d"]:
        """``codes @ rows``."""
        return _sum_bags(values, indices, _starts(indices, offsets), rows)

    def sampled_products(
        self,
        left: Float[Tensor, "token d"],
        rows: Float[Tensor, "width d"],
        indices: Int[Tensor, "*selected"],
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "*selected"]:
        """``left @ rows.T`` at the selected places only."""
        products = left.new_empty(indices.shape)
        if products.numel():
            left, rows = _with_contiguous_rows(left), _with_contiguous_rows(rows)
            starts = _starts(indices, offsets)
            d = rows.shape[1]
            _run(
                programs.sampled_products_program,
                (starts.numel() - 1,),
                *(left, rows, indices.contiguous(), starts, products),
                *(d, left.stride(0), rows.stride(0)),
                ENTRIES=_ENTRIES,
                COLUMNS=_block(d, _MOST_COLUMNS),
                SUM=_accumulator(left.dtype),
            )
        return products

    def sum_by_latent(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"],
        rows: Float[Tensor, "token d"],
        width: int,
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "{width} d"]:
        """``codes.T @ rows``: the entries are sorted by latent and every latent is a bag."""
        latents, order = indices.flatten().sort(stable=True)
        starts = _starts(indices, offsets)
        tokens = rows_of(starts[:-1], latents.numel())[order]
        return _sum_bags(values.flatten()[order], tokens, offsets_of(latents, width + 1), rows)


TRITON = TritonKernels()
"""The sparse kernels in Triton."""


def _sum_bags(values: Tensor, places: Tensor, starts: Tensor, rows: Tensor) -> Tensor:
    """The bags' sums of rows weighted by values, in the rows' type."""
    n_bags, d = starts.numel() - 1, rows.shape[1]
    sums = rows.new_empty(n_bags, d)
    if sums.numel():
        rows = _with_contiguous_rows(rows)
        columns = _block(d, _MOST_COLUMNS)
        _run(
            programs.weighted_sum_program,
            (n_bags, triton.cdiv(d, columns)),
            *(values.contiguous(), places.contiguous(), starts, rows, sums, d, rows.stride(0)),
            ENTRIES=_ENTRIES,
            COLUMNS=columns,
            SUM=_accumulator(rows.dtype),
        )
    return sums


def _starts(indices: Tensor, offsets: Tensor | None) -> Tensor:
    """The start of every token's entries, and after the last the number of all entries."""
    starts = offsets_of_slots(indices) if offsets is None else offsets
    return torch.cat([starts, starts.new_tensor([indices.numel()])])


def _with_contiguous_rows(matrix: Tensor) -> Tensor:
    return matrix if matrix.stride(1) == 1 else matrix.contiguous()


def _block(size: int, most: int) -> int:
    """The power of two that programs walk over `size` columns by."""
    return min(max(triton.next_power_of_2(size), 16), most)


def _accumulator(dtype: torch.dtype) -> Any:
    return tl.float64 if dtype == torch.float64 else tl.float32


def _run(program: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Launch a program on the device of its first argument."""
    device = arguments[0].device
    if device.type == "cpu" and not triton.knobs.runtime.interpret:
        raise ValueRangeError(
            "Triton's kernels need tensors on an accelerator; got tensors on the CPU. "
            "Use using_kernels('torch'), or set TRITON_INTERPRET=1 to run them interpreted."
        )
    with torch.accelerator.device_index(device.index if device.type != "cpu" else None):
        # Products and sums are rounded once, which is Triton's habit but not in all versions.
        program[grid](*arguments, **constants, enable_fp_fusion=True)
