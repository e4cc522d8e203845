"""`ValueSketch`: how values are spread, in counts that add up exactly and never grow with the data.

A float32 is cut after some bits of its fraction; the values that share what is left share a
bucket. Buckets are intervals in the order of the values, so the bucket of a given rank is exact,
and any number in it differs from the true order statistic by less than the bucket's width.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ProvenanceError, ValueRangeError
from modelassay.decompositions.codes import Codes

FRACTION_BITS = 6
"""Bits kept of a value's fraction: an error of at most 1/128 of the value (ours)."""
_FRACTION = 23  # of a float32
_EXPONENT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueSketch:
    """Active values of each unit, counted by bucket; two sketches add up to that of all values."""

    width: int
    """Units."""
    bits: int
    """Bits kept of the fraction: buckets are ``2^-bits`` of their lower end wide, or less."""
    keys: Int[Tensor, " entry"]
    """Unit and bucket of each entry as one number, increasing."""
    counts: Int[Tensor, " entry"]

    @staticmethod
    def zero(width: int, bits: int = FRACTION_BITS) -> "ValueSketch":
        """The sketch of no values: the neutral element of `+`.

        Raises:
            ValueRangeError: if there are not 0 to 23 bits.
        """
        if not 0 <= bits <= _FRACTION:
            raise ValueRangeError(
                f"bits must be from 0 to {_FRACTION}, as a float32 has; got {bits}. Use "
                f"{FRACTION_BITS}."
            )
        empty = torch.zeros(0, dtype=torch.int64)
        return ValueSketch(width=width, bits=bits, keys=empty, counts=empty)

    @staticmethod
    def of(codes: Codes, bits: int = FRACTION_BITS) -> "ValueSketch":
        """The sketch of all values other than zero."""
        empty = ValueSketch.zero(codes.width, bits)
        active = codes.active()
        values = codes.values[active].detach().cpu().float()
        keys = codes.indices[active].cpu() * empty.buckets + _buckets(values, bits)
        found, counts = keys.unique(return_counts=True)
        return ValueSketch(width=codes.width, bits=bits, keys=found, counts=counts)

    @property
    def buckets(self) -> int:
        """Buckets that a unit may have."""
        return 2 ** (_EXPONENT + self.bits + 1)

    @property
    def relative_error(self) -> float:
        """Bound on ``|quantile - true| / |true|``, for values that are not denormal."""
        return 2.0 ** -(self.bits + 1)

    def __add__(self, other: "ValueSketch") -> "ValueSketch":
        """The sketch of the values of both, exactly.

        Raises:
            ProvenanceError: if they are of different units or buckets.
        """
        if (self.width, self.bits) != (other.width, other.bits):
            raise ProvenanceError(
                f"Sketches to add must have the same units and bits; got {self.width} and "
                f"{other.width} units, {self.bits} and {other.bits} bits. Make both alike."
            )
        keys, place = torch.cat([self.keys, other.keys]).unique(return_inverse=True)
        counts = torch.zeros(len(keys), dtype=torch.int64)
        counts.index_add_(0, place, torch.cat([self.counts, other.counts]))
        return ValueSketch(width=self.width, bits=self.bits, keys=keys, counts=counts)

    def totals(self) -> Int[Tensor, " {self.width}"]:
        """Values counted, by unit."""
        totals = torch.zeros(self.width, dtype=torch.int64)
        return totals.index_add_(0, self.units(), self.counts)

    def units(self) -> Int[Tensor, " entry"]:
        """Unit of each entry."""
        return self.keys // self.buckets

    def midpoints(self) -> Float[Tensor, " entry"]:
        """Middle of each entry's bucket."""
        low, high = _ends(self.keys % self.buckets, self.bits)
        return ((low + high) / 2).float()

    def quantile(self, share: float) -> Float[Tensor, " {self.width}"]:
        """The order statistic of rank ``ceil(share * n)`` of each unit, up to `relative_error`.

        NaN for a unit without values.

        Raises:
            ValueRangeError: if the share is not from 0 to 1.
        """
        if not 0 <= share <= 1:
            raise ValueRangeError(f"A quantile must be from 0 to 1; got {share}. Give a share.")
        totals = self.totals()
        # Exact also where share * n is a whole number that a float would miss by its last bit.
        ranks = (share * totals.double() - 1e-9).ceil().long().clamp(min=1)
        before = totals.cumsum(0) - totals
        entry = torch.searchsorted(self.counts.cumsum(0), before + ranks)
        values = torch.cat([self.midpoints(), torch.tensor([torch.nan])])
        return torch.where(totals > 0, values[entry.clamp(max=len(self.keys))], torch.nan)

    def histogram(
        self, n_bins: int, low: Float[Tensor, " unit"], high: Float[Tensor, " unit"]
    ) -> Int[Tensor, "unit {n_bins}"]:
        """Counts in equal bins between two ends of each unit; a bucket counts at its middle."""
        units = self.units()
        length = (high - low)[units].double().clamp(min=torch.finfo(torch.float64).tiny)
        share = (self.midpoints().double() - low[units]) / length
        bins = (share * n_bins).long().clamp(0, n_bins - 1)
        counts = torch.zeros(self.width * n_bins, dtype=torch.int64)
        counts.index_add_(0, units * n_bins + bins, self.counts)
        return counts.view(self.width, n_bins)


def _buckets(values: Float[Tensor, " value"], bits: int) -> Int[Tensor, " value"]:
    """Number of each value's bucket, increasing with the value."""
    raw = torch.from_numpy(values.numpy().view(np.int32).astype(np.int64))
    size = (raw & 0x7FFFFFFF) >> (_FRACTION - bits)
    zero = 2 ** (_EXPONENT + bits)
    return torch.where(raw >= 0, zero + size, zero - 1 - size)


def _ends(
    buckets: Int[Tensor, " entry"], bits: int
) -> tuple[Float[Tensor, " entry"], Float[Tensor, " entry"]]:
    """The smaller and the larger end of each bucket, by magnitude, with the sign."""
    zero = 2 ** (_EXPONENT + bits)
    positive = buckets >= zero
    size = torch.where(positive, buckets - zero, zero - 1 - buckets)
    sign = torch.where(positive, 1.0, -1.0).double()

    def value(number: Tensor) -> Tensor:
        raw = (number << (_FRACTION - bits)).numpy().astype(np.int32)
        return torch.from_numpy(raw.view(np.float32).astype(np.float64))

    # The last finite bucket has no upper end that is a number: it ends at its lower one.
    low, high = value(size), value(size + 1)
    return sign * low, sign * torch.where(high.isfinite(), high, low)
