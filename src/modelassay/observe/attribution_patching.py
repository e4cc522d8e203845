"""Attribution patching: effects of all parts from gradients, and how far they can be trusted.

With ``Δ`` the change that a part would make to an activation, to first order

    effect ≈ Δ · ∂m/∂x at the target's run,

for all parts and positions from one backward pass. Integrated gradients take the mean gradient on
the straight line from the target's to the source's activation of a site instead, and are complete:

    sum over positions (source - target) · mean gradient = m(site carried over) - m(target).

The integral is taken by Gauss-Legendre quadrature with as many nodes as that equation asks for.

Reference: Nanda 2023, "Attribution patching"; Syed et al. 2023; Sundararajan et al. 2017 (IG and
completeness); Marks et al. 2024 (IG at a site); Hanna et al. 2024.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.patching import (
    Direction,
    Effects,
    Runs,
    check_parts,
    collected,
    sites,
)
from modelassay.observe.patching_columns import Column, chunks, columns_for
from modelassay.observe.patching_pairs import Measure, PromptPairs, logit_difference
from modelassay.observe.patching_parts import Part, masked
from modelassay.observe.probes.scores import Measured, group_weights
from modelassay.observe.probes.scores import measure as with_interval
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_FEWEST_NODES = 4
_ABSOLUTE = 1e-3
"""Of the measure, an error that is always allowed: rounding in float32 (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completeness:
    """Whether integrated gradients at a site sum to what carrying the site over does."""

    site: Site
    nodes: int
    """Nodes of the quadrature that the last of the pairs needed."""
    attributed: Float[Tensor, " pair"]
    """Sum of the site's attributions over all positions."""
    actual: Float[Tensor, " pair"]
    """Change of the measure when the site is carried over everywhere."""
    complete: Bool[Tensor, " pair"]
    """Whether they agree within the tolerance."""

    @property
    def gap(self) -> Float[Tensor, " pair"]:
        """What is attributed too much."""
        return self.attributed - self.actual


def attribute(
    subject: Subject,
    pairs: PromptPairs,
    parts: Sequence[Part],
    *,
    columns: Sequence[Column] | None = None,
    measure: Measure = logit_difference,
    direction: Direction = "denoising",
    batch_pairs: int = 64,
) -> Effects:
    """Estimate the effects that `patch` measures from one backward pass.

    Arguments and errors are those of `patch`.
    """
    check_parts(subject, parts)
    columns = columns_for(subject, pairs, columns)
    tables: list[Tensor] = []
    ends: list[tuple[Tensor, Tensor]] = []
    for chunk, masks in chunks(pairs, columns, batch_pairs):
        with torch.no_grad():
            runs = Runs(subject, chunk, measure, direction, sites(parts))
        run = subject.run(runs.target_tokens, read=sites(parts), gradients=True)
        with torch.enable_grad():
            total = runs.measured(run.logits).sum()
        read = [run.activations[site] for site in sites(parts)]
        found = torch.autograd.grad(total, read)
        gradients = dict(zip(sites(parts), found, strict=True))
        tables.append(
            torch.stack([_attributed(runs, part, gradients[part.site], masks) for part in parts])
        )
        ends.append((runs.source, runs.target))
    return collected("attribution patching", direction, parts, columns, tables, ends, pairs)


def integrated_gradients(
    subject: Subject,
    pairs: PromptPairs,
    parts: Sequence[Part],
    *,
    columns: Sequence[Column] | None = None,
    measure: Measure = logit_difference,
    direction: Direction = "denoising",
    tolerance: float = 0.01,
    max_nodes: int = 128,
    batch_pairs: int = 64,
    progress: Progress = SILENT,
) -> tuple[Effects, tuple[Completeness, ...]]:
    """Attribute effects by gradients along the line between the runs, until they add up.

    The number of nodes is doubled from 4 until on every pair the sum over positions is within
    ``tolerance · |actual|`` (plus rounding) of what carrying the whole site over does, or until
    `max_nodes`: then the pairs concerned are marked in the result as not complete.

    Args:
        tolerance: relative, above 0.
        max_nodes: at most so many passes a site.

    Raises:
        ValueRangeError: a tolerance that is not above 0, or fewer nodes than 4; besides what
            `patch` raises.

    Returns:
        The effects, and for each site how well they add up.
    """
    if not tolerance > 0 or max_nodes < _FEWEST_NODES:
        raise ValueRangeError(
            f"tolerance must be above 0 and max_nodes at least {_FEWEST_NODES}; got {tolerance} "
            f"and {max_nodes}. Use 0.01 and 128."
        )
    check_parts(subject, parts)
    columns = columns_for(subject, pairs, columns)
    tables: list[Tensor] = []
    ends: list[tuple[Tensor, Tensor]] = []
    checks: dict[Site, list[Completeness]] = {site: [] for site in sites(parts)}
    total = len(checks) * -(-len(pairs) // batch_pairs)
    with progress.task("Integrating gradients", total=total, unit="sites") as task:
        for chunk, masks in chunks(pairs, columns, batch_pairs):
            with torch.no_grad():
                runs = Runs(subject, chunk, measure, direction, sites(parts))
            gradients: dict[Site, Tensor] = {}
            for site in checks:
                gradients[site], check = _integrated(runs, site, chunk.real, tolerance, max_nodes)
                checks[site].append(check)
                task.advance(1)
            tables.append(
                torch.stack(
                    [_attributed(runs, part, gradients[part.site], masks) for part in parts]
                )
            )
            ends.append((runs.source, runs.target))
    effects = collected("integrated gradients", direction, parts, columns, tables, ends, pairs)
    return effects, tuple(_joined(found) for found in checks.values())


def _attributed(
    runs: Runs, part: Part, gradient: Tensor, masks: Sequence[Tensor]
) -> Float[Tensor, "column pair"]:
    """``Δ · gradient`` summed over the positions of each column."""
    ours, theirs = runs.target_activation(part.site), runs.source_activations[part.site]
    change = part.replaced(ours, theirs) - ours
    product = (change * gradient).float()
    nothing = torch.zeros_like(product)
    return torch.stack(
        [masked(part.site, mask, product, nothing).flatten(1).sum(1).cpu() for mask in masks]
    )


def _integrated(
    runs: Runs, site: Site, real: Bool[Tensor, "pair token"], tolerance: float, max_nodes: int
) -> tuple[Tensor, Completeness]:
    """The mean gradient between the runs, and how well it adds up."""
    ours = runs.target_activation(site).detach()
    carried = masked(site, real, runs.source_activations[site].detach(), ours)
    change = carried - ours
    with torch.no_grad():
        actual = runs.with_activation(site, carried) - runs.target
    nodes = _FEWEST_NODES
    while True:
        gradient = _mean_gradient(runs, site, ours, change, nodes)
        attributed = (change * gradient).float().flatten(1).sum(1).cpu()
        allowed = tolerance * actual.abs() + _ABSOLUTE
        complete = (attributed - actual).abs() <= allowed
        if bool(complete.all()) or 2 * nodes > max_nodes:
            break
        nodes *= 2
    check = Completeness(
        site=site, nodes=nodes, attributed=attributed, actual=actual, complete=complete
    )
    return gradient, check


def _mean_gradient(runs: Runs, site: Site, ours: Tensor, change: Tensor, nodes: int) -> Tensor:
    """Gauss-Legendre quadrature of the gradient from target (0) to source (1)."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    mean = torch.zeros_like(ours)
    for place, weight in zip(((places + 1) / 2).tolist(), (weights / 2).tolist(), strict=True):
        between = (ours + place * change).requires_grad_()
        with torch.enable_grad():
            total = runs.with_activation(site, between, gradients=True).sum()
        (gradient,) = torch.autograd.grad(total, between)
        mean += weight * gradient
    return mean


def _joined(parts: Sequence[Completeness]) -> Completeness:
    return Completeness(
        site=parts[0].site,
        nodes=max(part.nodes for part in parts),
        attributed=torch.cat([part.attributed for part in parts]),
        actual=torch.cat([part.actual for part in parts]),
        complete=torch.cat([part.complete for part in parts]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How well estimated effects follow measured ones, over cells of part and column."""

    pearson: Measured
    spearman: Measured
    n_cells: int
    """Cells in which at least one of the two is not 0."""


def agreement(estimated: Effects, measured: Effects, seed: int = 0) -> Agreement:
    """Correlations of mean effects over cells, with 95 % intervals over groups of pairs.

    Cells that are 0 in both (positions before the prompts differ) are left out: they agree for a
    trivial reason. NaN if fewer than three cells are left.

    Raises:
        ShapeError: if they are not effects of the same parts, columns and pairs.
    """
    same = (estimated.parts, estimated.columns) == (measured.parts, measured.columns)
    if not same or estimated.values.shape != measured.values.shape:
        raise ShapeError(
            "Effects to compare must be of the same parts, columns and pairs; got "
            f"{list(estimated.values.shape)} and {list(measured.values.shape)}. "
            "Compute both with the same arguments."
        )
    left, right = (e.values.double().flatten(0, 1) for e in (estimated, measured))
    kept = (left != 0).any(1) | (right != 0).any(1)
    left, right = left[kept], right[kept]
    if len(left) < 3:
        unknown = Measured(value=torch.nan, low=torch.nan, high=torch.nan)
        return Agreement(pearson=unknown, spearman=unknown, n_cells=len(left))
    weights = group_weights(measured.groups, derived(seed, "agreement"))
    return Agreement(
        pearson=with_interval(lambda w: _correlation(w @ left.T, w @ right.T), weights),
        spearman=with_interval(
            lambda w: _correlation(_ranks(w @ left.T), _ranks(w @ right.T)), weights
        ),
        n_cells=len(left),
    )


def _correlation(
    left: Float[Tensor, "resample cell"], right: Float[Tensor, "resample cell"]
) -> Float[Tensor, " resample"]:
    left, right = (x - x.mean(1, keepdim=True) for x in (left, right))
    return (left * right).sum(1) / (left.norm(dim=1) * right.norm(dim=1))


def _ranks(values: Float[Tensor, "resample cell"]) -> Float[Tensor, "resample cell"]:
    """Ranks of each row's cells; effects are real numbers, so that ties do not matter."""
    order: Int[Tensor, "resample cell"] = values.argsort(1)
    return order.argsort(1).double()
