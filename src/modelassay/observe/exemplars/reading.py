"""Read units over a harvest of any size, some whole contexts at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.activations.streaming import StreamedHarvest
from modelassay.core.progress import SILENT, Progress
from modelassay.decompositions.codes import Codes
from modelassay.observe.exemplars.units import Units
from modelassay.subjects.site import Site

Readable = Harvest | StreamedHarvest


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitBatch:
    """Units' values on the measured tokens of some whole contexts."""

    rows: Int[Tensor, " token"]
    """Number of each token among all measured ones of the harvest."""
    contexts: Int[Tensor, " token"]
    """The context that each token stands in."""
    activations: Float[Tensor, "token width"]
    codes: Codes


def read_units(
    source: Readable,
    site: Site | str | None,
    units: Units,
    *,
    contexts: Int[Tensor, " picked"] | None = None,
    batch_contexts: int = 32,
    progress: Progress = SILENT,
    title: str = "Reading units",
) -> Iterator[UnitBatch]:
    """Values of some units over a harvest, in order.

    A stored harvest is read from its files as it goes; of a streamed one, the model runs.

    Args:
        source: activations.
        site: which of the harvest's; may be left out where there is only one.
        units: what to read.
        contexts: numbers of the contexts, increasing; None for all.
        batch_contexts: contexts at a time: all that is held in RAM.
        progress: where to report.
        title: what the progress is called.
    """
    place = source.find(site)
    lengths = source.contexts.measured.sum(1)
    starts = lengths.cumsum(0) - lengths
    numbers = torch.arange(len(lengths)) if contexts is None else contexts
    with progress.task(title, total=int(lengths[numbers].sum()), unit="tokens") as task:
        for some in numbers.split(batch_contexts):
            owner = some.repeat_interleave(lengths[some])
            first = lengths[some].cumsum(0) - lengths[some]
            within = torch.arange(len(owner)) - first.repeat_interleave(lengths[some])
            rows = starts[owner] + within
            values = _activations(source, place, some, rows)
            yield UnitBatch(rows=rows, contexts=owner, activations=values, codes=units(values))
            task.advance(len(rows))


def _activations(source: Readable, site: Site, contexts: Tensor, rows: Tensor) -> Tensor:
    if isinstance(source, Harvest):
        return source.matrices[site].gather(rows)
    return torch.cat([batch[site] for batch in source.run.rows(contexts, [site])])
