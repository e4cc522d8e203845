"""Does the tree of feature splitting order latents by what they do?

Latents of a wide dictionary have parents in narrower ones: the latent of the most similar
direction. Two latents are as far apart in the tree as the number of widths at which their
ancestors differ, and as far apart downstream as ``||J d_i - J d_j||``, with J the mean Jacobian of
the rest of the model where a latent is active. The score is Spearman's rank correlation of the two
distances over pairs of latents; 0 if one of them is the same for all pairs.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.testbeds.scores import cosine

_ROWS = 32  # active inputs per latent over which the Jacobian is averaged (ours)
_SAME = 1e-4  # effect distances closer than this share of the largest are ties (ours)


def ancestors(
    directions: Float[Tensor, "latent d"], narrower: Sequence[Float[Tensor, "_ d"]]
) -> Int[Tensor, "latent level"]:
    """The ancestor of every latent at each narrower width, the narrowest first.

    Args:
        directions: of the latents.
        narrower: directions of the narrower dictionaries, the narrowest first.
    """
    found: list[Tensor] = []
    below, links = directions, torch.arange(len(directions))
    for level in reversed(narrower):
        links = cosine(below, level).argmax(1)[links]
        found.append(links)
        below = level
    return torch.stack(found[::-1], 1)


def tree_distance(lineage: Int[Tensor, "latent level"]) -> Float[Tensor, "latent latent"]:
    """Number of levels at which the ancestors of two latents differ, and 1 for the leaves."""
    differ = (lineage[:, None] != lineage[None]).float().sum(2)
    return differ + 1 - torch.eye(len(lineage))


def effects(
    reader: Callable[[Tensor], Tensor],
    x: Float[Tensor, "token d"],
    values: Float[Tensor, "token latent"],
    directions: Float[Tensor, "latent d"],
) -> Float[Tensor, "latent output"]:
    """``J d_i``, the Jacobian averaged over inputs on which latent i is active.

    Raises:
        ValueRangeError: if a latent is never active.
    """
    rows: list[Tensor] = []
    for latent, column in enumerate(values.T):
        active = column.nonzero()[:, 0]
        if len(active) == 0:
            raise ValueRangeError(
                f"Every latent must be active on some input; got none for latent {latent}. "
                "Leave dead latents out."
            )
        rows.append(active[torch.arange(_ROWS) % len(active)])
    tangents = directions.repeat_interleave(_ROWS, 0)
    return _along(reader, x[torch.cat(rows)], tangents).reshape(len(directions), _ROWS, -1).mean(1)


def _along(reader: Callable[[Tensor], Tensor], x: Tensor, tangents: Tensor) -> Tensor:
    """``J(x) t`` row by row: the gradient, with respect to v, of the linear map v -> J^T v."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        output = reader(x)
        cotangents = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad(output, x, cotangents, create_graph=True)
        return torch.autograd.grad(pulled, cotangents, tangents)[0].detach()


def splitting_score(
    lineage: Int[Tensor, "latent level"], effect: Float[Tensor, "latent output"]
) -> float:
    """Spearman's rho of tree distance and effect distance."""
    upper = torch.triu_indices(len(lineage), len(lineage), offset=1)
    tree = tree_distance(lineage)[upper[0], upper[1]]
    apart = torch.cdist(
        effect.double(), effect.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    apart = apart[upper[0], upper[1]]
    # Distances that are equal but for rounding must tie, or they would be ranked by it.
    ranked = (apart / (_SAME * apart.max().clamp(min=1e-12))).round()
    if bool((tree == tree[0]).all()) or bool((ranked == ranked[0]).all()):
        return 0.0
    return float(spearmanr(tree.numpy(), ranked.numpy()).statistic)
