"""`UnitStatistics`: what there is to know of units over more tokens than fit into memory.

Statistics of parts add up to those of the whole: counts, extremes, quantiles and the strongest
tokens exactly, sums up to the rounding of float64. So a harvest may be read in batches, in several
processes, or on several machines.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Float64, Int
from safetensors import safe_open
from torch import Tensor

from modelassay.core.errors import CorruptFileError, ProvenanceError, ShapeError
from modelassay.core.files import read_tensors, write_tensors
from modelassay.decompositions.codes import Codes
from modelassay.observe.exemplars.of_codes import Histogram
from modelassay.observe.streaming_statistics_sketch import FRACTION_BITS, ValueSketch

_FORMAT = "modelassay unit statistics 1"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UnitStatistics:
    """Statistics of some units over some tokens; a value of zero is silence."""

    n_tokens: int
    active: Int[Tensor, " unit"]
    """Tokens on which each unit is active."""
    total: Float64[Tensor, " unit"]
    """Sum of the values."""
    squares: Float64[Tensor, " unit"]
    lowest: Float[Tensor, " unit"]
    """Of the active values; infinite where there is none, as is `highest`."""
    highest: Float[Tensor, " unit"]
    top_values: Float[Tensor, "unit top"]
    """The largest values, descending; -inf where there are fewer."""
    top_rows: Int[Tensor, "unit top"]
    """Their tokens, the first ones among equals; -1 where there are fewer."""
    sketch: ValueSketch
    together: scipy.sparse.csr_matrix | None
    """Tokens on which both units of a pair are active, the diagonal included; None if not asked."""

    @staticmethod
    def of(
        codes: Codes,
        rows: Int[Tensor, " token"],
        *,
        n_top: int = 10,
        bits: int = FRACTION_BITS,
        pairs: bool = False,
    ) -> "UnitStatistics":
        """Statistics of some tokens.

        Args:
            codes: the units' values.
            rows: number of each token, different in all parts of a whole.
            n_top: strongest tokens to keep for each unit.
            bits: precision of the quantiles: see `ValueSketch`.
            pairs: count how often each two units are active together: memory grows with the
                number of pairs that ever are.

        Raises:
            ShapeError: if there is not one number for each token.
        """
        if len(rows) != codes.n_tokens:
            raise ShapeError(
                f"rows must be one number for each of {codes.n_tokens} tokens; got {len(rows)}. "
                "Number the tokens within the whole."
            )
        kept = codes.active().cpu()
        units, values = codes.indices.cpu()[kept], codes.values.detach().cpu().float()[kept]
        tokens = rows[kept.nonzero()[:, 0]]
        fill = torch.full((codes.width,), torch.inf)
        top_values, top_rows = _strongest(codes.width, units, values, tokens, n_top)
        sums = torch.zeros(2, codes.width, dtype=torch.float64)
        sums[0].index_add_(0, units, values.double())
        sums[1].index_add_(0, units, values.double() ** 2)
        return UnitStatistics(
            n_tokens=codes.n_tokens,
            active=torch.bincount(units, minlength=codes.width),
            total=sums[0],
            squares=sums[1],
            lowest=fill.scatter_reduce(0, units, values, "amin"),
            highest=(-fill).scatter_reduce(0, units, values, "amax"),
            top_values=top_values,
            top_rows=top_rows,
            sketch=ValueSketch.of(codes, bits),
            together=_together(codes) if pairs else None,
        )

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.active)

    @property
    def rates(self) -> Float64[Tensor, " unit"]:
        """Share of the tokens on which each unit is active."""
        return self.active.double() / max(1, self.n_tokens)

    @property
    def means(self) -> Float64[Tensor, " unit"]:
        """Mean over all tokens, silence counted as zero."""
        return self.total / max(1, self.n_tokens)

    @property
    def deviations(self) -> Float64[Tensor, " unit"]:
        """Standard deviation over all tokens, divided by their number."""
        return (self.squares / max(1, self.n_tokens) - self.means**2).clamp(min=0).sqrt()

    def __add__(self, other: "UnitStatistics") -> "UnitStatistics":
        """Statistics of the tokens of both.

        Raises:
            ProvenanceError: if they are of different units, or kept differently.
        """
        if self._kept() != other._kept():
            raise ProvenanceError(
                "Statistics to add must be of the same units and kept alike; got (units, top, "
                f"bits, pairs) {self._kept()} and {other._kept()}. Make both with the same "
                "arguments."
            )
        values = torch.cat([self.top_values, other.top_values], 1)
        rows = torch.cat([self.top_rows, other.top_rows], 1)
        # Two stable sorts: by value, and by token among equals.
        by_row = rows.argsort(dim=1, stable=True)
        order = by_row.gather(1, (-values.gather(1, by_row)).argsort(dim=1, stable=True))
        order = order[:, : self.top_values.shape[1]]
        pairs = None
        if self.together is not None and other.together is not None:
            pairs = self.together + other.together
        return UnitStatistics(
            n_tokens=self.n_tokens + other.n_tokens,
            active=self.active + other.active,
            total=self.total + other.total,
            squares=self.squares + other.squares,
            lowest=torch.minimum(self.lowest, other.lowest),
            highest=torch.maximum(self.highest, other.highest),
            top_values=values.gather(1, order),
            top_rows=rows.gather(1, order),
            sketch=self.sketch + other.sketch,
            together=pairs,
        )

    def histogram(self, n_bins: int = 20) -> Histogram:
        """Spread of each unit's active values, up to the width of the sketch's buckets."""
        low = torch.where(self.active > 0, self.lowest, 0.0).clamp(max=0)
        high = torch.where(self.active > 0, self.highest, 0.0).clamp(min=0)
        steps = torch.linspace(0, 1, n_bins + 1)
        return Histogram(
            counts=self.sketch.histogram(n_bins, low, high),
            edges=low[:, None] + (high - low)[:, None] * steps,
        )

    def correlated_pairs(
        self, count: int
    ) -> tuple[Int[Tensor, "pair 2"], Float64[Tensor, " pair"]]:
        """The pairs of units whose activity goes together most, and how much.

        The correlation of being active,
        ``phi = (n n_ij - n_i n_j) / sqrt(n_i n_j (n - n_i) (n - n_j))``.

        Args:
            count: most pairs to give, the strongest first.

        Raises:
            ShapeError: if pairs were not counted.
        """
        if self.together is None:
            raise ShapeError(
                "Pairs must have been counted; got statistics without. Make them with pairs=True."
            )
        pairs = scipy.sparse.triu(self.together, k=1).tocoo()
        first, second = pairs.row.astype(np.int64), pairs.col.astype(np.int64)
        active, n = self.active.double().numpy(), float(self.n_tokens)
        a, b = active[first], active[second]
        spread = np.sqrt(a * b * (n - a) * (n - b))
        phi = np.divide(n * pairs.data - a * b, spread, out=np.zeros(len(a)), where=spread > 0)
        order = np.lexsort((second, first, -phi))[:count]
        found = np.stack([first[order], second[order]], 1)
        return torch.from_numpy(found), torch.from_numpy(phi[order])

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, from which `load_statistics` reads."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors |= {"keys": self.sketch.keys, "counts": self.sketch.counts}
        if self.together is not None:
            coo = self.together.tocoo()
            pairs = np.stack([coo.row, coo.col, coo.data]).astype(np.int64)
            tensors["together"] = torch.from_numpy(pairs)
        facts = {"n_tokens": self.n_tokens, "bits": self.sketch.bits}
        write_tensors(path, tensors, {"format": _FORMAT, "facts": json.dumps(facts)})

    def _kept(self) -> tuple[int, int, int, bool]:
        return (
            self.width, self.top_values.shape[1], self.sketch.bits, self.together is not None,
        )  # fmt: skip


_TENSORS = ("active", "total", "squares", "lowest", "highest", "top_values", "top_rows")


def merged(parts: Iterable[UnitStatistics]) -> UnitStatistics:
    """Statistics of all parts together; at least one."""
    return reduce(add, parts)


def load_statistics(path: str | Path) -> UnitStatistics:
    """Read what `UnitStatistics.save` wrote.

    Raises:
        CorruptFileError: if the file is truncated, or holds something else.
        FileNotFoundError: if there is none.
    """
    tensors = read_tensors(path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
    if metadata.get("format") != _FORMAT:
        raise CorruptFileError(
            f"{str(path)!r} must hold unit statistics ({_FORMAT!r}); got "
            f"{metadata.get('format', 'another file')!r}. Choose a file written by save."
        )
    facts = json.loads(metadata["facts"])
    width = len(tensors["active"])
    pairs = tensors.get("together")
    return UnitStatistics(
        n_tokens=facts["n_tokens"],
        sketch=ValueSketch(
            width=width, bits=facts["bits"], keys=tensors["keys"], counts=tensors["counts"]
        ),
        together=None
        if pairs is None
        else scipy.sparse.csr_matrix(
            (pairs[2].numpy(), (pairs[0].numpy(), pairs[1].numpy())), shape=(width, width)
        ),
        **{name: tensors[name] for name in _TENSORS},
    )


def _strongest(
    width: int, units: Tensor, values: Tensor, tokens: Tensor, count: int
) -> tuple[Float[Tensor, "unit top"], Int[Tensor, "unit top"]]:
    order = torch.from_numpy(np.lexsort((tokens.numpy(), -values.numpy(), units.numpy())))
    units = units[order]
    sizes = torch.bincount(units, minlength=width)
    rank = torch.arange(len(units)) - (sizes.cumsum(0) - sizes)[units]
    kept = rank < count
    best = torch.full((width, count), -torch.inf)
    rows = torch.full((width, count), -1)
    best[units[kept], rank[kept]] = values[order][kept]
    rows[units[kept], rank[kept]] = tokens[order][kept]
    return best, rows


def _together(codes: Codes) -> scipy.sparse.csr_matrix:
    active = codes.to_scipy()
    active.data = np.ones(len(active.data), dtype=np.int64)
    return scipy.sparse.csr_matrix(active.T @ active)
