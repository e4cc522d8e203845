"""Two layouts for what was selected of a matrix with a row per token.

*Slots*: ``[token, slot]`` matrices, the same number for every token. *Bags*: flat ``[entry]``
vectors in the order of tokens with the start of every token's run in ``offsets``, for selections
whose number varies from token to token.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def rows_of(offsets: Int[Tensor, " token"], n_entries: int) -> Int[Tensor, " entry"]:
    """The row that every entry of some bags belongs to."""
    ends = torch.cat([offsets[1:], offsets.new_tensor([n_entries])])[: offsets.numel()]
    rows = torch.arange(offsets.numel(), device=offsets.device)
    return rows.repeat_interleave(ends - offsets, output_size=n_entries)


def offsets_of(rows: Int[Tensor, " entry"], n_rows: int) -> Int[Tensor, " token"]:
    """The position of every row's first entry, for rows in ascending order."""
    # A search rather than a count: `bincount` makes the host wait for an accelerator.
    return torch.searchsorted(rows, torch.arange(n_rows, device=rows.device))


def offsets_of_slots(indices: Int[Tensor, "token slot"]) -> Int[Tensor, " token"]:
    """The offsets that slots have as bags, once they are flattened."""
    n_tokens, n_slots = indices.shape
    return torch.arange(n_tokens, device=indices.device) * n_slots


def pad_bags(
    values: Float[Tensor, " entry"],
    indices: Int[Tensor, " entry"],
    offsets: Int[Tensor, " token"],
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
    """Bags as slots: as many as the longest bag has, the empty ones with value 0 and index 0."""
    rows = rows_of(offsets, values.numel())
    slots = torch.arange(values.numel(), device=values.device) - offsets[rows]
    n_slots = int(slots.max()) + 1 if values.numel() else 0
    padded_values = values.new_zeros(offsets.numel(), n_slots)
    padded_indices = indices.new_zeros(offsets.numel(), n_slots)
    padded_values[rows, slots] = values
    padded_indices[rows, slots] = indices
    return padded_values, padded_indices


def join_bags(
    bags: list[tuple[Float[Tensor, " _"], Int[Tensor, " _"], Int[Tensor, " _"]]],
) -> tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]:
    """Bags of consecutive tokens as one; at least one is given."""
    starts = torch.tensor([0] + [values.numel() for values, _, _ in bags]).cumsum(0).tolist()
    return (
        torch.cat([values for values, _, _ in bags]),
        torch.cat([indices for _, indices, _ in bags]),
        torch.cat([offsets + start for (_, _, offsets), start in zip(bags, starts, strict=False)]),
    )
