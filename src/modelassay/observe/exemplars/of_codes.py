"""Examples of each latent: its strongest activations, and random ones from every part of its range.

The strongest examples alone mislead: a latent may look pure at the top and mean something else, or
nothing, over the bulk of its activations (Bolukbasi et al. 2021). So each quantile group of the
active values, by rank, gives examples too.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.sparse import csc_matrix
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ShapeError
from modelassay.decompositions.codes import Codes

N_TOP = 10
N_GROUPS = 5
PER_GROUP = 2
REACH = 20
"""Tokens shown on each side of an example's peak (ours)."""
N_BINS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Examples of all latents, stored sparsely.

    Example e shows the tokens `starts[e] … starts[e] + lengths[e] - 1` of context `contexts[e]`.
    Its activations are `values[v]` at window offset `offsets[v]` for v from `value_starts[e]` to
    `value_starts[e + 1] - 1`.
    """

    latents: Int[Tensor, " example"]
    """In ascending order."""
    groups: Int[Tensor, " example"]
    """0 = top; q = 1, 2, … = quantile group q of the active values, 1 the highest."""
    contexts: Int[Tensor, " example"]
    """Row of `tokens`."""
    starts: Int[Tensor, " example"]
    lengths: Int[Tensor, " example"]
    peaks: Int[Tensor, " example"]
    """Offset within the window of the token that the example was chosen for."""
    value_starts: Int[Tensor, " example_plus_one"]
    offsets: Int[Tensor, " value"]
    values: Float[Tensor, " value"]
    tokens: Int[Tensor, "context token"]
    """Only the contexts that some example shows."""
    documents: tuple[str, ...]
    """Name of each of those contexts' document."""
    group_names: tuple[str, ...] = ()
    """Heading of each group, where they are not the strongest and the quantile groups alone."""
    silent_from: int | None = None
    """The first group of tokens on which the latent is silent; None if there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Distribution of each latent's active values."""

    counts: Int[Tensor, "latent bin"]
    edges: Float[Tensor, "latent edge"]
    """Equal bins from 0 (or the lowest value, if negative) to the highest value (or 0)."""


def find_examples(
    codes: Codes,
    contexts: TokenizedCorpus,
    generator: torch.Generator,
    *,
    n_top: int = N_TOP,
    n_groups: int = N_GROUPS,
    per_group: int = PER_GROUP,
    reach: int = REACH,
) -> Examples:
    """Choose examples of every latent.

    The `n_top` highest values come first; then `per_group` random ones from each of `n_groups`
    groups of the active values, of equal size by rank. No two examples of a latent stand within
    `reach` tokens of each other, so that one striking passage cannot fill the panel: a latent that
    is active in few places has fewer examples.

    Args:
        codes: values at the measured tokens of `contexts`, in their order.
        contexts: held-out contexts.
        generator: draws the examples of the quantile groups.
        n_top: strongest examples per latent.
        n_groups: quantile groups per latent.
        per_group: examples per group.
        reach: tokens shown on each side of the peak, as far as the context goes.

    Raises:
        ShapeError: if the codes are not those of these contexts.
    """
    place = _places(codes, contexts)
    columns = codes.to_scipy().tocsc()
    columns.sort_indices()
    keys = torch.rand(columns.nnz, generator=generator, dtype=torch.float64).numpy()
    chosen: list[NDArray[np.int64]] = []
    for latent in range(codes.width):
        span = slice(columns.indptr[latent], columns.indptr[latent + 1])
        picker = _Picker(columns.indices[span], columns.data[span], place[:, 0], reach)
        ranked = np.argsort(-picker.values, kind="stable")
        picker.take(ranked, group=0, count=n_top)
        for group, members in enumerate(np.array_split(ranked, n_groups), start=1):
            shuffled = members[np.argsort(keys[span][members], kind="stable")]
            picker.take(shuffled, group=group, count=per_group)
        chosen.append(picker.table(latent))
    return windows(np.concatenate(chosen), columns, place, contexts, reach)


class _Picker:
    """Takes activations of one latent in a given order, never two near each other."""

    def __init__(
        self, rows: NDArray[np.integer], values: NDArray[np.floating],
        context_of_row: NDArray[np.int64], reach: int,
    ) -> None:  # fmt: skip
        self.values = values
        self._rows = rows
        self._contexts = context_of_row[rows]
        self._reach = reach
        self._taken: list[tuple[int, int]] = []
        self._groups: list[int] = []

    def take(self, order: NDArray[np.int64], *, group: int, count: int) -> None:
        for index in order.tolist():
            if count == 0:
                return
            row, context = int(self._rows[index]), int(self._contexts[index])
            if any(c == context and abs(r - row) <= self._reach for r, c in self._taken):
                continue
            self._taken.append((row, context))
            self._groups.append(group)
            count -= 1

    def table(self, latent: int) -> NDArray[np.int64]:
        """Columns latent, group, row."""
        rows = [row for row, _ in self._taken]
        columns = ([latent] * len(rows), self._groups, rows)
        return np.array(columns, dtype=np.int64).T


def _places(codes: Codes, contexts: TokenizedCorpus) -> NDArray[np.int64]:
    """Context and position of each row of the codes."""
    if codes.n_tokens != contexts.n_tokens:
        raise ShapeError(
            f"Codes must have one row for each measured token; got {codes.n_tokens} rows for "
            f"{contexts.n_tokens} tokens. Encode the activations of these very contexts."
        )
    return contexts.measured.nonzero().numpy()


def windows(
    chosen: NDArray[np.int64], columns: csc_matrix, place: NDArray[np.int64],
    contexts: TokenizedCorpus, reach: int, group_names: tuple[str, ...] = (),
    silent_from: int | None = None,
) -> Examples:  # fmt: skip
    """The windows around the chosen rows and the latents' values in them.

    Args:
        chosen: columns latent, group, row; sorted by latent and group.
        columns: values, one row a measured token and one column a latent, indices sorted.
        place: context and position of each row.
        contexts: to which the rows belong.
        reach: tokens on each side, as far as the context's measured tokens go.
        group_names: headings of the groups.
        silent_from: the first group of silent tokens.
    """
    latents, groups, rows = chosen.T
    row_range = np.searchsorted(place[:, 0], np.arange(len(contexts) + 1))
    owners = place[rows, 0]
    first = np.maximum(rows - reach, row_range[owners])
    last = np.minimum(rows + reach, row_range[owners + 1] - 1)
    offsets, values, lengths = [], [], []
    for latent, low, high in zip(latents.tolist(), first.tolist(), last.tolist(), strict=True):
        span = slice(columns.indptr[latent], columns.indptr[latent + 1])
        start, stop = np.searchsorted(columns.indices[span], (low, high + 1)) + span.start
        offsets.append(columns.indices[start:stop] - low)
        values.append(columns.data[start:stop])
        lengths.append(stop - start)
    shown, contexts_of_examples = np.unique(owners, return_inverse=True)
    documents = contexts.corpus.documents
    return Examples(
        latents=torch.from_numpy(latents.copy()),
        groups=torch.from_numpy(groups.copy()),
        contexts=torch.from_numpy(contexts_of_examples),
        starts=torch.from_numpy(place[first, 1]),
        lengths=torch.from_numpy(last - first + 1),
        peaks=torch.from_numpy(rows - first),
        value_starts=torch.from_numpy(np.cumsum([0, *lengths])),
        offsets=torch.from_numpy(np.concatenate([*offsets, np.zeros(0)]).astype(np.int64)),
        values=torch.from_numpy(np.concatenate([*values, np.zeros(0)]).astype(np.float32)),
        tokens=contexts.tokens[torch.from_numpy(shown)],
        documents=tuple(documents[int(contexts.document[c])].name for c in shown),
        group_names=group_names,
        silent_from=silent_from,
    )


def activation_histogram(codes: Codes, n_bins: int = N_BINS) -> Histogram:
    """Histogram of each latent's active values; all zero for a latent that is never active."""
    active = codes.active()
    latents, values = codes.indices[active].cpu(), codes.values[active].cpu().double()
    low = torch.zeros(codes.width, dtype=torch.float64).scatter_reduce(0, latents, values, "amin")
    high = torch.zeros(codes.width, dtype=torch.float64).scatter_reduce(0, latents, values, "amax")
    share = (values - low[latents]) / (high - low)[latents]
    bins = (share * n_bins).long().clamp(0, n_bins - 1)
    counts = torch.bincount(latents * n_bins + bins, minlength=codes.width * n_bins)
    steps = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)
    return Histogram(
        counts=counts.view(codes.width, n_bins),
        edges=(low[:, None] + (high - low)[:, None] * steps).float(),
    )
