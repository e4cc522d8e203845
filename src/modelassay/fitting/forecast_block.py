"""A transformer block of some sizes, random, to time what a model's forward pass takes."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from modelassay.fitting.forecast_job import ModelShape

_MOST_PARAMETERS = 50_000_000  # of the block that is timed (ours): 200 MB in float32


class TimedBlock:
    """Attention and an MLP with as many weights as one of a model's blocks, if that is not many.

    Attention is computed as `load_subject` has models do it: patterns in full, then masked.
    """

    def __init__(
        self, model: ModelShape, generator: torch.Generator, where: torch.device, dtype: torch.dtype
    ) -> None:
        d, width = model.d_model, model.attention_width
        per_block = min(model.block_parameters // model.layers, _MOST_PARAMETERS)
        self.hidden = max(1, (per_block - 4 * d * width) // (2 * d))
        self.heads = model.heads
        shapes = [(d, 3 * width), (width, d), (d, self.hidden), (self.hidden, d)]
        self.weights = [
            (torch.randn(shape, generator=generator) / shape[0] ** 0.5).to(where, dtype)
            for shape in shapes
        ]

    @property
    def parameters(self) -> int:
        """Entries of its matrices."""
        return sum(weight.numel() for weight in self.weights)

    def __call__(
        self, resid: Float[Tensor, "batch token d_model"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The residual stream after the block."""
        inward, outward, up, down = self.weights
        shape = resid.shape[-1:]
        n_batch, n_tokens, _ = resid.shape
        mixed = functional.layer_norm(resid, shape) @ inward
        query, key, value = mixed.view(n_batch, n_tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        later = torch.ones(n_tokens, n_tokens, dtype=torch.bool, device=resid.device).triu(1)
        pattern = functional.softmax(scores.masked_fill(later, -torch.inf), dim=-1)
        resid = resid + (pattern @ value).transpose(1, 2).flatten(2) @ outward
        return resid + functional.silu(functional.layer_norm(resid, shape) @ up) @ down
