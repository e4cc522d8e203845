"""Causal mediation: how much of a prompt's effect passes through some parts of a model.

For a mediator M, a clean prompt x and a corrupt one x', with y the measure,

    total     y(x', M(x')) - y(x, M(x))
    indirect  y(x,  M(x')) - y(x, M(x))     only what the mediator sees is changed
    direct    y(x', M(x))  - y(x, M(x))     all is changed but what the mediator sees

The two need not sum to the total: what is left is the interaction of both ways.

Reference: Pearl 2001, "Direct and indirect effects"; Vig et al. 2020, "Investigating gender bias in
language models using causal mediation analysis".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.randomness import derived
from modelassay.observe.patching import check_parts, sites
from modelassay.observe.patching_columns import Column, chunks, columns_for, everywhere
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
from modelassay.subjects.visitors import Edit


@dataclass(frozen=True, kw_only=True, slots=True)
class Mediation:
    """Effects of the corrupt prompt on the measure, pair by pair."""

    mediators: tuple[str, ...]
    total: Float[Tensor, " pair"]
    indirect: Float[Tensor, " pair"]
    direct: Float[Tensor, " pair"]
    groups: Int[Tensor, " pair"]

    def means(self, seed: int = 0) -> dict[str, Measured]:
        """Mean total, indirect and direct effect, and the share mediated (indirect / total).

        With 95 % intervals over groups of pairs; the share of a total of 0 is NaN.
        """
        weights = group_weights(self.groups, derived(seed, "mediation"))
        effects = {"total": self.total, "indirect": self.indirect, "direct": self.direct}
        found = {name: _mean(values.double(), weights) for name, values in effects.items()}
        indirect, total = self.indirect.double(), self.total.double()
        found["mediated"] = with_interval(lambda w: (w @ indirect) / (w @ total), weights)
        return found


def _mean(values: Float[Tensor, " pair"], weights: Float[Tensor, "resample pair"]) -> Measured:
    return with_interval(lambda w: w @ values / w.sum(1), weights)


@torch.no_grad()
def mediate(
    subject: Subject,
    pairs: PromptPairs,
    mediators: Sequence[Part],
    *,
    column: Column | None = None,
    measure: Measure = logit_difference,
    batch_pairs: int = 64,
) -> Mediation:
    """Split the effect of the corrupt prompts into what passes through the mediators and the rest.

    Args:
        subject: a language model.
        pairs: prompts in two versions.
        mediators: parts that are set together.
        column: at which positions; everywhere by default.
        measure: y.
        batch_pairs: pairs that the model reads at a time.

    Raises:
        ValueRangeError: no mediator, or a latent or head out of range.
        UnknownNameError: an unknown site.
        ProvenanceError: a dictionary of another site or model.
    """
    check_parts(subject, mediators)
    columns = columns_for(subject, pairs, [column or everywhere(pairs)])
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for chunk, (mask,) in chunks(pairs, columns, batch_pairs):
        runs = [
            subject.run(prompts, read=sites(mediators)) for prompts in (chunk.clean, chunk.corrupt)
        ]
        clean, corrupt = (measured_last(run.logits, chunk, measure) for run in runs)
        changed: list[Tensor] = []
        for prompts, other in ((chunk.clean, runs[1]), (chunk.corrupt, runs[0])):
            edits = carrying(mediators, other.activations, mask)
            changed.append(measured_last(subject.run(prompts, edit=edits).logits, chunk, measure))
        found.append((corrupt - clean, changed[0] - clean, changed[1] - clean))
    total, indirect, direct = (torch.cat(part) for part in zip(*found, strict=True))
    return Mediation(
        mediators=tuple(part.name for part in mediators),
        total=total,
        indirect=indirect,
        direct=direct,
        groups=pairs.groups,
    )


def carrying(
    parts: Sequence[Part], source: Mapping[Site, Tensor], mask: Bool[Tensor, "pair token"]
) -> dict[Site, Edit]:
    """Edits that carry parts over from a source's activations, together.

    Of several parts of one site (heads, latents, the error) the changes are added, so that all
    latents and the error make up the whole site.
    """

    def editing(site: Site) -> Edit:
        own = [part for part in parts if part.site == site]

        def edit(value: Tensor) -> Tensor:
            found = [part.replaced(value, source[site]) for part in own]
            # One part is set and not added, which would round.
            changed = value + sum(each - value for each in found) if len(found) > 1 else found[0]
            return masked(site, mask, changed, value)

        return edit

    return {site: editing(site) for site in sites(parts)}
