"""The sparse kernels in plain PyTorch, for every device."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.bags import offsets_of, offsets_of_slots, rows_of

GROUP = 16  # columns; best of 8, 16 and 32 on CPU: reference/performance.md
_WORD = 8  # booleans that are looked at together: as many bytes as the widest integer has
_CROWDED = 4  # above a quarter of the words, looking at all entries is faster: ours, measured
_SPARSE = 2  # below half, values of 0 are taken out first on CPU: ours
_LOOKS_FREELY = ("cpu",)


def looks_freely(device: torch.device) -> bool:
    """Whether a look at values costs no waiting: with an accelerator the host waits for it."""
    return device.type in _LOOKS_FREELY


@final
class TorchKernels:
    """See `kernels_interface.Kernels`."""

    def topk(
        self, pre: Float[Tensor, "token width"], k: int
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """The k largest entries of every row, exactly.

        Two stages: the maxima of groups of 16 columns, then a search inside the k winning groups.
        It is exact because a group that lost has k groups above it, each holding an entry at
        least as large as any of its own. Widths that do not divide go to `torch.topk`.
        """
        n_tokens, width = pre.shape
        k = min(k, width)
        n_groups = width // GROUP
        if width % GROUP or 2 * (n_groups + k * GROUP) > width:
            values, indices = pre.topk(k, dim=1, sorted=False)
            return values, indices
        # A group is every n_groups-th column: its maximum is then taken over contiguous rows.
        maxima = pre.reshape(n_tokens, GROUP, n_groups).amax(1)
        winners = maxima.topk(k, dim=1, sorted=False).indices
        members = torch.arange(0, width, n_groups, device=pre.device)
        candidates = (winners.unsqueeze(2) + members).flatten(1)
        values, chosen = pre.gather(1, candidates).topk(k, dim=1, sorted=False)
        return values, candidates.gather(1, chosen)

    def group_max(
        self, pre: Float[Tensor, "token width"], k: int
    ) -> tuple[Float[Tensor, "token {k}"], Int[Tensor, "token {k}"]]:
        """The largest entry of each of k groups of consecutive columns."""
        n_tokens, width = pre.shape
        values, members = pre.reshape(n_tokens, k, width // k).max(2)
        return values, members + torch.arange(0, width, width // k, device=pre.device)

    def above(
        self,
        pre: Float[Tensor, "token width"],
        bound: float | Float[Tensor, ""] | Float[Tensor, " width"] | Float[Tensor, "token 1"],
    ) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]:
        """All entries greater than a bound, as bags."""
        n_tokens, width = pre.shape
        places = _true_places((pre > bound).flatten())
        starts = torch.arange(n_tokens, device=pre.device) * width
        values = pre.flatten().index_select(0, places)
        return values, places % max(width, 1), torch.searchsorted(places, starts)

    def keep_largest(
        self,
        values: Float[Tensor, " entry"],
        indices: Int[Tensor, " entry"],
        offsets: Int[Tensor, " token"],
        *,
        count: int,
    ) -> tuple[Float[Tensor, " kept"], Int[Tensor, " kept"], Int[Tensor, " token"]]:
        """The `count` largest entries of some bags, still as bags of the same tokens."""
        if values.numel() <= count:
            return values, indices, offsets
        kept = values.topk(count, sorted=False).indices.sort().values
        # Of a token's first entry on, all that is kept comes after what is kept before it.
        return values[kept], indices[kept], torch.searchsorted(kept, offsets)

    def weighted_sum(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"],
        rows: Float[Tensor, "width d"],
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "token d"]:
        """``codes @ rows``."""
        values, indices, offsets = _as_bags(values, indices, offsets)
        values, indices, offsets = _without_zeros(values, indices, offsets)
        if not values.numel():
            return rows.new_zeros(offsets.numel(), rows.shape[1])
        return F.embedding_bag(
            indices, rows, offsets, mode="sum", per_sample_weights=values.to(rows.dtype)
        )

    def sampled_products(
        self,
        left: Float[Tensor, "token d"],
        rows: Float[Tensor, "width d"],
        indices: Int[Tensor, "*selected"],
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "*selected"]:
        """``left @ rows.T`` at the selected places only."""
        if not indices.numel():
            return left.new_zeros(indices.shape)
        flat = indices.flatten()
        starts = offsets_of_slots(indices) if offsets is None else offsets
        # What autograd runs for the gradient of `F.embedding_bag` by its per-sample weights; it
        # has no public name, and calling it spares a forward pass made for the gradient's sake.
        products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
            left.contiguous(), rows, flat, starts, rows_of(starts, flat.numel()), 0
        )
        return products.view(indices.shape)

    def sum_by_latent(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"],
        rows: Float[Tensor, "token d"],
        width: int,
        offsets: Int[Tensor, " token"] | None,
    ) -> Float[Tensor, "{width} d"]:
        """``codes.T @ rows``, by bags of tokens after sorting the entries by latent."""
        values, indices, offsets = _as_bags(values, indices, offsets)
        values, indices, offsets = _without_zeros(values, indices, offsets)
        if not values.numel():
            return rows.new_zeros(width, rows.shape[1])
        latents, order = indices.sort()
        return F.embedding_bag(
            rows_of(offsets, indices.numel())[order],
            rows,
            offsets_of(latents, width),
            mode="sum",
            per_sample_weights=values[order].to(rows.dtype),
        )


TORCH = TorchKernels()
"""The sparse kernels in plain PyTorch."""


def _true_places(flags: Tensor) -> Tensor:
    """``flags.nonzero()``, faster where few are set: eight are looked at as one integer."""
    if flags.numel() % _WORD:
        return flags.nonzero().squeeze(1)
    words = flags.view(torch.int64)
    hit = words.nonzero().squeeze(1)
    if hit.numel() * _CROWDED > words.numel():
        return flags.nonzero().squeeze(1)
    members = words.index_select(0, hit).view(torch.bool).nonzero().squeeze(1)
    return hit.index_select(0, members >> 3).mul_(_WORD).add_(members & (_WORD - 1))


def _as_bags(
    values: Tensor, indices: Tensor, offsets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    if offsets is None:
        return values.flatten(), indices.flatten(), offsets_of_slots(indices)
    return values, indices, offsets


def _without_zeros(
    values: Tensor, indices: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same bags without values of 0, where these are many and looking costs no waiting."""
    if not looks_freely(values.device) or int(values.count_nonzero()) * _SPARSE > values.numel():
        return values, indices, offsets
    kept = values.nonzero().squeeze(1)
    return values[kept], indices[kept], torch.searchsorted(kept, offsets)
