"""Triton's programs compile for accelerators that are not here, and refuse to run without one.

Their results are tested in `test_kernels_reference`.
"""

import os

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.kernels_interface import using_kernels

triton = pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="interpreted programs are not compiled"
)
AMPERE, HOPPER = 80, 90


def compiled(name, pointers, sizes, blocks, compute_capability):
    """Machine code of one program, for pointers to the given types."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from modelassay.decompositions import kernels_triton_programs as programs

    # A size of 1 is compiled in as a constant, as Triton does at a launch.
    constants = blocks | {name: 1 for name, size in sizes.items() if size == 1}
    signature = {name: f"*{kind}" for name, kind in pointers.items()}
    signature |= dict.fromkeys(sizes, "i32") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(getattr(programs, name), signature, constants)
    target = GPUTarget("cuda", compute_capability, 32)
    return triton.compile(source, target, options={"enable_fp_fusion": True}).asm["cubin"]


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    ("kind", "compute_capability"), [("fp32", AMPERE), ("bf16", HOPPER), ("fp64", HOPPER)]
)
def test_the_selecting_programs_compile(kind, compute_capability, size):
    block = {"COLUMNS": 256}
    pre = {"pre": kind, "values": kind, "latents": "i64"}
    sizes = {"width": size, "k": size, "pre_stride": size}
    assert compiled("topk_program", pre, sizes, block, compute_capability)
    sizes = {"width": size, "pre_stride": size, "bounds_stride": 1}
    counted = {"pre": kind, "bounds": kind, "counts": "i64"}
    assert compiled("count_above_program", counted, sizes, block, compute_capability)
    collected = pre | {"bounds": kind, "starts": "i64"}
    assert compiled("collect_above_program", collected, sizes, block, compute_capability)


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    ("kind", "compute_capability"), [("fp32", AMPERE), ("bf16", HOPPER), ("fp64", HOPPER)]
)
def test_the_summing_programs_compile(kind, compute_capability, size):
    tile = {
        "ENTRIES": 16,
        "COLUMNS": 64,
        "SUM": triton.language.float64 if kind == "fp64" else triton.language.float32,
    }
    places = {"places": "i64", "starts": "i64", "rows": kind}
    sizes = {"d": size, "rows_stride": size}
    summed = places | {"values": kind, "sums": kind}
    assert compiled("weighted_sum_program", summed, sizes, tile, compute_capability)
    sampled = places | {"left": kind, "products": kind}
    sizes |= {"left_stride": size}
    assert compiled("sampled_products_program", sampled, sizes, tile, compute_capability)


def test_tensors_on_the_cpu_are_refused():
    with using_kernels("triton") as kernels, pytest.raises(ValueRangeError) as refused:
        kernels.topk(torch.zeros(2, 8), 1)
    assert str(refused.value) == (
        "Triton's kernels need tensors on an accelerator; got tensors on the CPU. "
        "Use using_kernels('torch'), or set TRITON_INTERPRET=1 to run them interpreted."
    )
