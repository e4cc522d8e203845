"""Sums by document: what every interval over documents is made from."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor

from modelassay.activations.harvest import Harvest


def document_of_row(harvest: Harvest) -> Int[Tensor, " token"]:
    """The document of every activation row, numbered 0, 1, … without gaps."""
    owners = harvest.contexts.document[harvest.rows[:, 0]]
    return torch.unique(owners, return_inverse=True)[1]


def sum_by_document(
    values: sparse.spmatrix | sparse.sparray | Float[Tensor, "token column"],
    document: Int[Tensor, " token"],
) -> Float[Tensor, "document column"]:
    """Column sums within each document, in float64."""
    n_tokens = len(document)
    n_documents = int(document.max()) + 1
    indicator = sparse.csr_matrix(
        (np.ones(n_tokens), (document.cpu().numpy(), np.arange(n_tokens))),
        shape=(n_documents, n_tokens),
    )
    rows: Any = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    sums: Any = indicator @ rows
    return torch.from_numpy(sums.toarray() if sparse.issparse(sums) else sums)


def tokens_by_document(document: Int[Tensor, " token"]) -> Float[Tensor, "document 1"]:
    """Number of tokens of each document."""
    return torch.bincount(document).to(torch.float64)[:, None]
