"""Activation patching: which parts of a run, put into another, carry the answer over.

Two prompts differ in one respect. A part of the source's run (a site, a head, a latent at some
positions) takes its counterpart's place in the target's run, and the change of a measure ``m`` is

    effect = m(target with the part of the source) - m(target).

*Denoising* puts parts of the clean run into the corrupt one and finds what suffices; *noising* the
reverse, and finds what is needed. They differ where parts can stand in for each other.

Reference: Vig et al. 2020; Meng et al. 2022; Heimersheim & Nanda 2024, "How to use and interpret
activation patching".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.patching_columns import Column, chunks, columns_for
from modelassay.observe.patching_pairs import (
    Measure,
    PromptPairs,
    logit_difference,
    measured_last,
)
from modelassay.observe.patching_parts import Part, masked
from modelassay.observe.probes.scores import Measured, group_weights
from modelassay.observe.probes.scores import measure as with_interval
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

Direction = Literal["denoising", "noising"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effects:
    """Effects of parts in rows at positions in columns, pair by pair."""

    method: str
    direction: Direction
    parts: tuple[str, ...]
    columns: tuple[str, ...]
    values: Float[Tensor, "part column pair"]
    """Change of the measure, in its units."""
    source: Float[Tensor, " pair"]
    """The measure in the run that parts are taken from."""
    target: Float[Tensor, " pair"]
    """The measure in the run that they are put into."""
    groups: Int[Tensor, " pair"]
    """What is resampled together."""

    def total(self, seed: int = 0) -> Measured:
        """Mean difference of the measure between the runs, source less target.

        Shares mean little where its interval holds 0: the model does not tell the prompts apart.
        """
        weights = group_weights(self.groups, derived(seed, "effects"))
        difference = (self.source - self.target).double()
        return with_interval(lambda w: w @ difference / w.sum(1), weights)

    def shares(self) -> Float[Tensor, "part column"]:
        """Effects as shares of the whole difference: ``sum effect / sum (source - target)``.

        Raises:
            ValueRangeError: if the two runs do not differ in the measure.
        """
        total = (self.source - self.target).double().sum()
        if abs(float(total)) < 1e-6 * len(self.source):
            raise ValueRangeError(
                "Clean and corrupt runs must differ in the measure; got a mean difference of "
                f"{float(total) / len(self.source):.2g}. Choose other answers or prompts."
            )
        return (self.values.double().sum(2) / total).float()

    def share(self, part: int, column: int, seed: int = 0) -> Measured:
        """A cell's share with its 95 % interval, by resampling groups of pairs."""
        weights = group_weights(self.groups, derived(seed, "effects"))
        effect, total = self.values[part, column].double(), (self.source - self.target).double()
        return with_interval(lambda w: (w @ effect) / (w @ total), weights)

    def intervals(self, seed: int = 0) -> Float[Tensor, "part column end"]:
        """Lower and upper ends of all cells' 95 % intervals; NaN where groups are too few."""
        weights = group_weights(self.groups, derived(seed, "effects"))[1:]
        if not len(weights):
            return torch.full((*self.values.shape[:2], 2), torch.nan)
        totals = weights @ (self.source - self.target).double()
        shares = self.values.double() @ weights.T / totals
        ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
        return shares.quantile(ends, dim=2).movedim(0, -1).float()


@torch.no_grad()
def patch(
    subject: Subject,
    pairs: PromptPairs,
    parts: Sequence[Part],
    *,
    columns: Sequence[Column] | None = None,
    measure: Measure = logit_difference,
    direction: Direction = "denoising",
    batch_pairs: int = 64,
    progress: Progress = SILENT,
) -> Effects:
    """Patch each part at each column of positions, one at a time, on every pair.

    Blocks before a site run once a site. A cell whose part does not differ between the runs (the
    positions before the first difference) has effect 0 without running.

    Args:
        subject: a language model.
        pairs: prompts in two versions.
        parts: what is carried over; rows of the result.
        columns: at which positions; one a position by default.
        measure: from the logits after the last token to a number for each pair.
        direction: denoising puts clean parts into the corrupt run, noising corrupt into clean.
        batch_pairs: pairs that the model reads at a time.
        progress: where to report.

    Raises:
        UnknownNameError: an unknown site.
        ValueRangeError: a latent or head out of range.
        ProvenanceError: a dictionary of another site or model.
        ShapeError: a site without one entry for each token.
    """
    check_parts(subject, parts)
    columns = columns_for(subject, pairs, columns)
    tables: list[Tensor] = []
    ends: list[tuple[Tensor, Tensor]] = []
    total = len(parts) * -(-len(pairs) // batch_pairs)
    with progress.task("Patching", total=total, unit="parts") as task:
        for chunk, masks in chunks(pairs, columns, batch_pairs):
            runs = Runs(subject, chunk, measure, direction, sites(parts))
            ends.append((runs.source, runs.target))
            rows: list[Tensor] = []
            for part in parts:
                rows.append(torch.stack([runs.effect(part, mask) for mask in masks]))
                task.advance(1)
            tables.append(torch.stack(rows))
    return collected("patching", direction, parts, columns, tables, ends, pairs)


class Runs:
    """The source's and the target's run on a few pairs, and patched runs between them."""

    def __init__(
        self,
        subject: Subject,
        pairs: PromptPairs,
        measure: Measure,
        direction: Direction,
        read: Sequence[Site],
    ) -> None:
        clean_first = direction == "denoising"
        self.source_tokens = pairs.clean if clean_first else pairs.corrupt
        self.target_tokens = pairs.corrupt if clean_first else pairs.clean
        self._subject, self._pairs, self._measure = subject, pairs, measure
        run = subject.run(self.source_tokens, read=read)
        self.source_activations = run.activations
        self.source = self.measured(run.logits)
        self.target = self.measured(subject.run(self.target_tokens).logits)
        self._downstream = {site: subject.downstream(site, self.target_tokens) for site in read}

    def measured(self, logits: Tensor | None) -> Float[Tensor, " pair"]:
        """The measure after the last token of each pair."""
        return measured_last(logits, self._pairs, self._measure)

    def target_activation(self, site: Site) -> Tensor:
        """A site in the target's run."""
        return self._downstream[site].activation

    def with_activation(
        self, site: Site, activation: Tensor, *, gradients: bool = False
    ) -> Float[Tensor, " pair"]:
        """The measure with another activation in the target's run."""
        return self.measured(self._downstream[site](activation, gradients=gradients).logits)

    def effect(self, part: Part, mask: Bool[Tensor, "pair token"]) -> Float[Tensor, " pair"]:
        """Change of the measure when the part is carried over where the mask is True."""
        ours = self.target_activation(part.site)
        theirs = self.source_activations[part.site]
        mixed = masked(part.site, mask, part.replaced(ours, theirs), ours)
        if torch.equal(mixed, ours):
            return torch.zeros_like(self.target)
        return self.with_activation(part.site, mixed) - self.target


def sites(parts: Sequence[Part]) -> tuple[Site, ...]:
    """The sites of some parts, each once, in order of computation."""
    return tuple(sorted({part.site for part in parts}))


def check_parts(subject: Subject, parts: Sequence[Part]) -> None:
    """Refuse parts that the model does not have."""
    if not parts:
        raise ValueRangeError(
            "There must be at least one part to carry over; got none. Name sites, heads or latents."
        )
    for part in parts:
        part.check(subject)


def collected(
    method: str,
    direction: Direction,
    parts: Sequence[Part],
    columns: Sequence[Column],
    tables: Sequence[Float[Tensor, "part column _chunk"]],
    ends: Sequence[tuple[Tensor, Tensor]],
    pairs: PromptPairs,
) -> Effects:
    """Chunks of pairs as one result."""
    return Effects(
        method=method,
        direction=direction,
        parts=tuple(part.name for part in parts),
        columns=tuple(column.name for column in columns),
        values=torch.cat([*tables], dim=2),
        source=torch.cat([source for source, _ in ends]),
        target=torch.cat([target for _, target in ends]),
        groups=pairs.groups,
    )
