"""Half of the held-out documents: where latents are active, and which concepts hold there.

Concepts are chosen on one half and measured on the other, so that choosing cannot flatter.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.decompositions.codes import Codes
from modelassay.explain.concepts import ConceptLabels


@dataclass(frozen=True, kw_only=True, slots=True)
class Half:
    """Positive values as parallel arrays, and labels by token."""

    rows: NDArray[np.int64]
    """Token of each value."""
    latents: NDArray[np.int64]
    values: NDArray[np.float32]
    width: int
    document: NDArray[np.int64]
    """Document of each token, numbered from 0 without gaps."""
    held: NDArray[np.bool_]
    """[token, concept]: the concept holds."""
    known: NDArray[np.bool_]

    @property
    def n_documents(self) -> int:
        """Documents in this half."""
        return int(self.document.max(initial=-1)) + 1

    def counts(self) -> NDArray[np.int64]:
        """Number of tokens on which each latent is active."""
        return np.bincount(self.latents, minlength=self.width)

    def shifted(self, generator: torch.Generator) -> "Half":
        """The same with each document's labels rotated by a quarter to three quarters of it.

        That keeps how common labels are in a document and how they follow each other, and breaks
        what ties them to the latents.
        """
        order = np.empty(len(self.document), dtype=np.int64)
        shares = 0.25 + 0.5 * torch.rand(self.n_documents, generator=generator).numpy()
        sizes = np.bincount(self.document)
        by_document = np.split(np.argsort(self.document, kind="stable"), np.cumsum(sizes)[:-1])
        for rows, share in zip(by_document, shares, strict=True):
            order[rows] = np.roll(rows, round(float(share) * len(rows)))
        return replace(self, held=self.held[order], known=self.known[order])


def halves(
    codes: Codes, contexts: TokenizedCorpus, labels: ConceptLabels, generator: torch.Generator
) -> tuple[Half, Half]:
    """Documents in random order, each to the half that holds fewer tokens so far."""
    owners = contexts.document[contexts.measured.nonzero()[:, 0]]
    numbers = torch.unique(owners, return_inverse=True)[1]
    load, first = [0, 0], torch.zeros(int(numbers.max()) + 1, dtype=torch.bool)
    sizes = torch.bincount(numbers).tolist()
    for index in torch.randperm(len(sizes), generator=generator).tolist():
        lighter = int(load[1] < load[0])
        first[index] = lighter == 0
        load[lighter] += sizes[index]
    held, known = labels.labels[contexts.measured], labels.known[contexts.measured]
    chosen = first[numbers]
    return tuple(  # pyright: ignore[reportReturnType]
        _half(codes[side], numbers[side], held[side], known[side]) for side in (chosen, ~chosen)
    )


def _half(
    codes: Codes,
    document: Tensor,
    held: Bool[Tensor, "token concept"],
    known: Bool[Tensor, "token concept"],
) -> Half:
    rows, slots = (codes.values > 0).nonzero(as_tuple=True)
    return Half(
        rows=rows.cpu().numpy(),
        latents=codes.indices[rows, slots].cpu().numpy(),
        values=codes.values[rows, slots].float().cpu().numpy(),
        width=codes.width,
        document=torch.unique(document, return_inverse=True)[1].numpy(),
        held=held.numpy(),
        known=known.numpy(),
    )
