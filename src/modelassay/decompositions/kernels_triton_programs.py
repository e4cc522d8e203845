# pyright: basic
"""The Triton programs behind `kernels_triton`, each for one row, bag or tile of the result.

Matrices have contiguous rows, `..._stride` entries apart. Pointers are named after what they point
to. ``starts`` has one entry more than there are bags: a bag ends where the next begins.

Triton compiles their source: nothing may wrap them, so that checks of types stay off.
"""

from typing import no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]


@triton.jit
@no_type_check
def ordered_keys(numbers):
    """Integers in the same order as some floating-point numbers (-0 comes just before 0)."""
    if numbers.dtype == tl.float64:
        bits = numbers.to(tl.int64, bitcast=True)
        keys = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    else:
        bits = numbers.to(tl.float32).to(tl.int32, bitcast=True)
        keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return keys


@triton.jit
@no_type_check
def count_from(row, width, least, COLUMNS: tl.constexpr):
    """How many keys of a row are at least `least`."""
    counts = tl.zeros([COLUMNS], dtype=tl.int32)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = columns < width
        keys = ordered_keys(tl.load(row + columns, mask=inside, other=0.0))
        counts += (inside & (keys >= least)).to(tl.int32)
    return tl.sum(counts, 0)


@triton.jit
@no_type_check
def topk_program(pre, values, latents, width, k, pre_stride, COLUMNS: tl.constexpr):
    """The k largest of one row: by bisection the k-th largest key, then all that reach it.

    The row is read some fifteen times, but only the first time from beyond the nearest cache.
    """
    token = tl.program_id(0).to(tl.int64)
    row = pre + token * pre_stride
    columns = tl.arange(0, COLUMNS)
    numbers = tl.load(row + columns, mask=columns < width, other=0.0)
    # What lies outside the row counts as its first entry.
    head = ordered_keys(tl.load(row))
    keys = tl.where(columns < width, ordered_keys(numbers), head)
    least, greatest = tl.min(keys, 0), tl.max(keys, 0)
    for first in range(COLUMNS, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        numbers = tl.load(row + columns, mask=columns < width, other=0.0)
        keys = tl.where(columns < width, ordered_keys(numbers), head)
        least = tl.minimum(least, tl.min(keys, 0))
        greatest = tl.maximum(greatest, tl.max(keys, 0))
    # At least k keys reach `low`, and fewer than k, namely `n_high`, reach `high`.
    low = least
    high = greatest + 1
    n_low = width
    n_high = 0
    while (low + 1 < high) & (n_low != k):
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        count = count_from(row, width, middle, COLUMNS)
        if count >= k:
            low = middle
            n_low = count
        else:
            high = middle
            n_high = count
    # What exceeds `low` fills the slots from the left, what equals it those that are left over.
    n_above = 0
    n_equal = 0
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = columns < width
        numbers = tl.load(row + columns, mask=inside, other=0.0)
        keys = ordered_keys(numbers)
        more = (inside & (keys > low)).to(tl.int32)
        equal = (inside & (keys == low)).to(tl.int32)
        left = n_above + tl.cumsum(more, 0) - 1
        right = k - n_equal - tl.cumsum(equal, 0)
        slots = tl.where(more == 1, left, right)
        chosen = ((more == 1) & (slots < k)) | ((equal == 1) & (slots >= n_high))
        tl.store(values + token * k + slots, numbers, mask=chosen)
        tl.store(latents + token * k + slots, columns.to(tl.int64), mask=chosen)
        n_above += tl.sum(more, 0)
        n_equal += tl.sum(equal, 0)


@triton.jit
@no_type_check
def comparable(numbers):
    """Numbers in a type that every device compares in."""
    if numbers.dtype != tl.float64:
        numbers = numbers.to(tl.float32)
    return numbers


@triton.jit
@no_type_check
def passing(row, bounds, columns, width, bounds_stride):
    """The numbers of some columns of a row, and whether each exceeds its bound.

    With a stride of 0 all columns have the same bound.
    """
    inside = columns < width
    numbers = tl.load(row + columns, mask=inside, other=0.0)
    least = tl.load(bounds + columns * bounds_stride, mask=inside, other=0.0)
    return numbers, inside & (comparable(numbers) > comparable(least))


@triton.jit
@no_type_check
def count_above_program(
    pre, bounds, counts, width, pre_stride, bounds_stride, COLUMNS: tl.constexpr
):
    """How many entries of one row exceed their bounds."""
    token = tl.program_id(0).to(tl.int64)
    total = tl.zeros([COLUMNS], dtype=tl.int32)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        _, pass_ = passing(pre + token * pre_stride, bounds, columns, width, bounds_stride)
        total += pass_.to(tl.int32)
    tl.store(counts + token, tl.sum(total, 0).to(tl.int64))


@triton.jit
@no_type_check
def collect_above_program(
    pre, bounds, starts, values, latents, width, pre_stride, bounds_stride, COLUMNS: tl.constexpr
):
    """The entries of one row that exceed their bounds, from `starts` on."""
    token = tl.program_id(0).to(tl.int64)
    next_place = tl.load(starts + token)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        numbers, pass_ = passing(pre + token * pre_stride, bounds, columns, width, bounds_stride)
        ranks = tl.cumsum(pass_.to(tl.int32), 0)
        tl.store(values + next_place + ranks - 1, numbers, mask=pass_)
        tl.store(latents + next_place + ranks - 1, columns.to(tl.int64), mask=pass_)
        next_place += tl.sum(pass_.to(tl.int64), 0)


@triton.jit
@no_type_check
def weighted_sum_program(
    values,
    places,
    starts,
    rows,
    sums,
    d,
    rows_stride,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
):
    """Some columns of one bag's sum of ``values[e] * rows[places[e]]``, accumulated as `SUM`."""
    bag = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], dtype=SUM)
    end = tl.load(starts + bag + 1)
    for first in range(tl.load(starts + bag), end, ENTRIES):
        entries = first + tl.arange(0, ENTRIES)
        weights = tl.load(values + entries, mask=entries < end, other=0.0).to(SUM)
        # Rows of weight 0 are not read.
        place = tl.load(places + entries, mask=entries < end, other=0)
        mask = (weights != 0.0)[:, None] & (columns < d)[None, :]
        tile = tl.load(rows + place[:, None] * rows_stride + columns[None, :], mask=mask, other=0.0)
        total += tl.sum(weights[:, None] * tile.to(SUM), 0)
    tl.store(sums + bag * d + columns, total, mask=columns < d)


@triton.jit
@no_type_check
def sampled_products_program(
    left,
    rows,
    places,
    starts,
    products,
    d,
    left_stride,
    rows_stride,
    ENTRIES: tl.constexpr,
    COLUMNS: tl.constexpr,
    SUM: tl.constexpr,
):
    """One bag's dot products ``left[bag] @ rows[places[e]]``, accumulated as `SUM`."""
    bag = tl.program_id(0).to(tl.int64)
    end = tl.load(starts + bag + 1)
    for first in range(tl.load(starts + bag), end, ENTRIES):
        entries = first + tl.arange(0, ENTRIES)
        place = tl.load(places + entries, mask=entries < end, other=0)
        total = tl.zeros([ENTRIES], dtype=SUM)
        for column in range(0, d, COLUMNS):
            columns = column + tl.arange(0, COLUMNS)
            own = tl.load(left + bag * left_stride + columns, mask=columns < d, other=0.0)
            mask = (entries < end)[:, None] & (columns < d)[None, :]
            tile = tl.load(
                rows + place[:, None] * rows_stride + columns[None, :], mask=mask, other=0.0
            )
            total += tl.sum(own.to(SUM)[None, :] * tile.to(SUM), 1)
        tl.store(products + entries, total, mask=entries < end)
