"""Codes of linear methods, in which every latent has a value, of either sign."""

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.decompositions.codes import Codes
from modelassay.decompositions.selection import topk


def dense_codes(values: Float[Tensor, "token width"], k: int | None = None) -> Codes:
    """Codes with a slot for every latent, or for the k of largest magnitude."""
    if k is None:
        indices = torch.arange(values.shape[1], device=values.device).expand(values.shape)
        return Codes(indices=indices, values=values, width=values.shape[1])
    _, indices = topk(values.abs(), k)
    return Codes(indices=indices, values=values.gather(1, indices), width=values.shape[1])
