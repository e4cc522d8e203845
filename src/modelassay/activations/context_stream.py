"""`ContextStream`: whole contexts in random order, their tokens in their own order."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.activations.streaming import StreamedHarvest
from modelassay.core.errors import ProvenanceError, TooFewTokensError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.subjects.site import Site


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ContextBatch:
    """Some contexts: the measured tokens of each in their order, padded at the end."""

    activations: Float[Tensor, "context token width"]
    """0 where there is no token."""
    mask: Bool[Tensor, "context token"]
    """Which tokens are there: the first ones of each context."""


class ContextStream(Iterator[ContextBatch]):
    """Batches of whole contexts in random order, epoch after epoch.

    A context consists of its measured tokens, so without the BOS token. No context comes twice in
    an epoch; the fewer than `batch_contexts` that are left at its end sit that epoch out. As with
    `ActivationStream`, the order is a function of one number drawn from `generator`.

    Args:
        harvest: where the activations come from; a model that runs while they are used does so
            batch by batch.
        site: which of the harvest's; may be left out where there is only one.
        batch_contexts: contexts of a batch.
        generator: of the order.
        epochs: passes over the contexts; None for no end.

    Raises:
        TooFewTokensError: if there are fewer contexts than one batch holds.
        ValueRangeError: if a batch is to hold none.
        UnknownNameError: if the harvest has no such site.
    """

    def __init__(
        self,
        harvest: Harvest | StreamedHarvest,
        site: Site | str | None = None,
        *,
        batch_contexts: int,
        generator: torch.Generator,
        epochs: int | None = None,
    ) -> None:
        self._harvest = harvest
        self._site = harvest.find(site)
        self.batch_contexts = batch_contexts
        self.epochs = epochs
        lengths = harvest.contexts.measured.sum(1)
        self._starts = lengths.cumsum(0) - lengths
        self._lengths = lengths
        self._contexts = lengths.nonzero()[:, 0]
        if batch_contexts < 1:
            raise ValueRangeError(
                f"batch_contexts must be at least 1; got {batch_contexts}. Use about 32."
            )
        if len(self._contexts) < batch_contexts:
            raise TooFewTokensError(
                f"There must be contexts for one batch of {batch_contexts}; got "
                f"{len(self._contexts)}. Harvest more tokens or lower batch_contexts."
            )
        self._seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._epoch = self._batch = 0
        self._order: Int[Tensor, " context"] | None = None

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one pass over the contexts."""
        return len(self._contexts) // self.batch_contexts

    @property
    def mean_tokens(self) -> float:
        """Tokens of a context, on average."""
        return float(self._lengths[self._contexts].double().mean())

    def __next__(self) -> ContextBatch:
        """The next batch."""
        if self._batch == self.batches_per_epoch:
            self._epoch, self._batch, self._order = self._epoch + 1, 0, None
        if self.epochs is not None and self._epoch >= self.epochs:
            raise StopIteration
        if self._order is None:
            draw = derived(self._seed, "contexts", self._epoch)
            self._order = self._contexts[torch.randperm(len(self._contexts), generator=draw)]
        first = self._batch * self.batch_contexts
        batch = self._read(self._order[first : first + self.batch_contexts])
        self._batch += 1
        return batch

    def _read(self, contexts: Int[Tensor, " picked"]) -> ContextBatch:
        lengths = self._lengths[contexts]
        places = torch.arange(int(lengths.max()))
        mask = places < lengths[:, None]
        if isinstance(self._harvest, Harvest):
            rows = (self._starts[contexts][:, None] + places)[mask]
            values = self._harvest.matrices[self._site].gather(rows)
        else:
            batches = self._harvest.run.rows(contexts, [self._site])
            values = torch.cat([batch[self._site] for batch in batches])
        activations = values.new_zeros(*mask.shape, values.shape[1])
        activations[mask] = values
        return ContextBatch(activations=activations, mask=mask)

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands; a stream that loads it goes on with the very same batches."""
        return {"seed": self._seed, "epoch": self._epoch, "batch": self._batch, **self._shape()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from where another stream over the same contexts stood.

        Raises:
            ProvenanceError: if that stream's contexts or batches had another shape.
        """
        for name, here in self._shape().items():
            if state[name] != here:
                raise ProvenanceError(
                    f"A stream goes on only over the contexts that it began with: {name} must be "
                    f"{state[name]}; got {here}. Use the same harvest and batch size."
                )
        self._seed, self._epoch, self._batch = state["seed"], state["epoch"], state["batch"]
        self._order = None

    def _shape(self) -> dict[str, int]:
        return {
            "contexts": len(self._contexts),
            "tokens": int(self._lengths.sum()),
            "batch_contexts": self.batch_contexts,
        }
