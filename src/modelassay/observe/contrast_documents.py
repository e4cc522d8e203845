"""`Responses`: how strongly each unit responds to each document, from one pass over a harvest."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.core.progress import SILENT, Progress
from modelassay.observe.exemplars.reading import Readable, read_units
from modelassay.observe.exemplars.units import Units
from modelassay.subjects.site import Site


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Responses:
    """Units' responses to items: documents, or the tokens of one class in a document.

    Tokens of one text are not independent, so that the document is what is counted, shuffled and
    split, never the token.
    """

    groups: Int[np.ndarray, " item"]
    """The document that each item belongs to."""
    names: tuple[str, ...]
    """Name of each document."""
    classes: Int[np.ndarray, " item"]
    """Class of the item's tokens; 0 where none were given."""
    tokens: Int[np.ndarray, " item"]
    """Tokens of the item."""
    means: Float[np.ndarray, "item unit"]
    """Mean over the item's tokens, silence counted as zero."""
    rates: Float[np.ndarray, "item unit"]
    """Share of the item's tokens on which the unit is active."""

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, index: Int[np.ndarray, " taken"] | Bool[np.ndarray, " item"]) -> "Responses":
        """Some of the items."""
        return Responses(
            groups=self.groups[index], names=self.names, classes=self.classes[index],
            tokens=self.tokens[index], means=self.means[index], rates=self.rates[index],
        )  # fmt: skip

    def minus(self, other: "Responses") -> "Responses":
        """Differences of means and rates, item by item.

        Raises:
            ShapeError: if the other's items or units are not the same ones.
        """
        alike = (
            self.means.shape == other.means.shape
            and [self.names[g] for g in self.groups] == [other.names[g] for g in other.groups]
            and np.array_equal(self.classes, other.classes)
            and np.array_equal(self.tokens, other.tokens)
        )
        if not alike:
            raise ShapeError(
                "Responses to compare must be to the same items, by the same units; got "
                f"{self.means.shape} and {other.means.shape}, of other documents or tokens. Read "
                "both models on the same contexts."
            )
        return Responses(
            groups=self.groups, names=self.names, classes=self.classes, tokens=self.tokens,
            means=self.means - other.means, rates=self.rates - other.rates,
        )  # fmt: skip


def responses(
    source: Readable,
    site: Site | str | None,
    units: Units,
    *,
    labels: Int[Tensor, "context token"] | None = None,
    min_tokens: int = 5,
    batch_contexts: int = 32,
    progress: Progress = SILENT,
) -> Responses:
    """Responses of some units to every document.

    Args:
        source: activations, stored or made while they are read.
        site: which of the harvest's; may be left out where there is only one.
        units: what responds.
        labels: class of each token, from 0; -1 for tokens to leave out. Then the tokens of one
            class in one document are an item, and classes are compared within documents.
        min_tokens: items of fewer tokens are left out: their rates say little (ours).
        batch_contexts: contexts read at a time.
        progress: where to report.

    Raises:
        ShapeError: if the labels are not those of the harvest's contexts.
        TooFewTokensError: if no item is left.
    """
    contexts = source.contexts
    if labels is not None and labels.shape != contexts.tokens.shape:
        raise ShapeError(
            f"labels must be {list(contexts.tokens.shape)}, as the tokens; got "
            f"{list(labels.shape)}. Give -1 where there is none."
        )
    kinds = torch.zeros_like(contexts.tokens) if labels is None else labels.long()
    kind = kinds[contexts.measured].numpy()
    document = contexts.document[contexts.measured.nonzero()[:, 0]].numpy()
    n_kinds = int(max(kind.max(initial=0), 0)) + 1
    key = np.where(kind < 0, -1, document * n_kinds + kind)
    present, counts = np.unique(key[key >= 0], return_counts=True)
    present, counts = present[counts >= min_tokens], counts[counts >= min_tokens]
    if not len(present):
        raise TooFewTokensError(
            f"There must be a document with {min_tokens} tokens; got none in {len(contexts)} "
            "contexts. Add text, or lower min_tokens."
        )
    item = np.searchsorted(present, key).clip(max=len(present) - 1)
    item[present[item] != key] = -1
    sums = np.zeros((len(present), len(units)), dtype=np.float64)
    active = np.zeros_like(sums)
    batches = read_units(
        source, site, units, batch_contexts=batch_contexts, progress=progress, title="Responses"
    )
    for batch in batches:
        owner = item[batch.rows.numpy()]
        here = np.flatnonzero(owner >= 0)
        sorter = scipy.sparse.csr_matrix(
            (np.ones(len(here)), (owner[here], here)), shape=(len(present), len(owner))
        )
        values = batch.codes.to_scipy().astype(np.float64)
        # Only the batch's own items: the matrices of all would be far larger than the batch.
        own = np.unique(owner[here])
        sums[own] += (sorter[own] @ values).toarray()
        active[own] += (sorter[own] @ (values != 0).astype(np.float64)).toarray()
    return Responses(
        groups=present // n_kinds,
        names=tuple(d.name for d in contexts.corpus.documents),
        classes=present % n_kinds,
        tokens=counts,
        means=sums / counts[:, None],
        rates=active / counts[:, None],
    )
