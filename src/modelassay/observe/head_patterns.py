"""Where heads of known kinds would look, and what share of a head's attention goes there.

A kind is a set of earlier positions for every query. Its null is the same number of earlier
positions, drawn at random: what a head that looks anywhere would score.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HeadKind = Literal["previous_token", "induction", "duplicate_token"]
KINDS: tuple[HeadKind, ...] = get_args(HeadKind)


def targets_of(
    kind: HeadKind, tokens: Int[Tensor, "batch token"]
) -> Bool[Tensor, "batch query key"]:
    """Where a head of a kind looks.

    ============== =================================================================
    kind           keys of a query at position t with token x
    ============== =================================================================
    previous_token t - 1
    duplicate_token earlier positions that hold x
    induction      positions right after earlier ones that hold x
    ============== =================================================================

    Reference: Elhage et al. 2021; Olsson et al. 2022, "In-context learning and induction heads".
    """
    n_tokens = tokens.shape[1]
    steps = torch.arange(n_tokens, device=tokens.device)
    if kind == "previous_token":
        return (steps[:, None] - 1 == steps[None, :]).expand(len(tokens), -1, -1)
    same = tokens[:, :, None] == tokens[:, None, :]
    earlier = same & (steps[:, None] > steps[None, :])
    if kind == "duplicate_token":
        return earlier
    after = torch.zeros_like(earlier)
    after[:, :, 1:] = earlier[:, :, :-1]
    # The token after the query's own predecessor would be the query itself.
    return after & (steps[:, None] > steps[None, :])


def target_share(
    pattern: Float[Tensor, "batch head query key"],
    targets: Bool[Tensor, "batch query key"],
    measured: Bool[Tensor, "batch query"],
) -> Float[Tensor, " head"]:
    """Mean attention to a kind's keys, over measured queries that have such keys; NaN for none."""
    queries = targets.any(-1) & measured
    if not bool(queries.any()):
        return torch.full((pattern.shape[1],), torch.nan, device=pattern.device)
    reached = torch.einsum("bhqk,bqk->bhq", pattern.float(), targets.float())
    return reached.movedim(1, 0)[:, queries].mean(1)


def shuffled_targets(
    targets: Bool[Tensor, "batch query key"], generator: torch.Generator
) -> Bool[Tensor, "batch query key"]:
    """As many keys for every query, at random among the positions up to its own."""
    draws = torch.rand(targets.shape, generator=generator).to(targets.device)
    n_tokens = targets.shape[-1]
    allowed = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=targets.device).tril()
    draws = draws.masked_fill(~allowed, -1.0)
    order = draws.argsort(-1, descending=True).argsort(-1)
    return (order < targets.sum(-1, keepdim=True)) & allowed
