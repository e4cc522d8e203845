"""Causal attention over latent codes, through a bottleneck: what a context says of a token."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError


class ContextAttention(nn.Module):
    """``c_proj(attention(q_target(z), k_ctx(z'), v_ctx(z')))`` with z' the codes one token before.

    Queries and keys have ``width / bottleneck`` entries over all heads, values the full width. A
    token sees the codes of earlier tokens alone, and one code of zeros that stands before the
    first. The modules' names are those of published files.

    Reference: Lubana et al. 2025, section 5; the bottleneck is their code's.
    """

    def __init__(self, width: int, *, heads: int, bottleneck: int) -> None:
        """Make an attention whose weights are all zero.

        Raises:
            ValueRangeError: if the width cannot be divided among the heads.
        """
        super().__init__()
        check_heads(width, heads=heads, bottleneck=bottleneck)
        self.width, self.heads, self.bottleneck = width, heads, bottleneck
        self.k_ctx = _zero_linear(width, width // bottleneck)
        self.q_target = _zero_linear(width, width // bottleneck)
        self.v_ctx = _zero_linear(width, width)
        self.c_proj = _zero_linear(width, width)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> None:
        """Draw the weights; the biases become 0.

        Rows have the lengths of the reference: one over the root of a head's size, and for the
        output over the root of the width. Its biases are those of torch's linear layers, much
        larger than a code at the start (zero is ours).
        """
        sizes = {
            self.k_ctx: self.width // self.bottleneck // self.heads,
            self.q_target: self.width // self.bottleneck // self.heads,
            self.v_ctx: self.width // self.heads,
            self.c_proj: self.width,
        }
        for linear, size in sizes.items():
            rows = torch.randn(linear.weight.shape, generator=generator, device=generator.device)
            linear.weight.copy_(F.normalize(rows, dim=1) / math.sqrt(size))
            linear.bias.zero_()

    def forward(
        self, codes: Float[Tensor, "context token width"]
    ) -> Float[Tensor, "context token width"]:
        """What earlier tokens' codes say of each token's; any sign."""
        before = F.pad(codes, (0, 0, 1, 0))[:, :-1]
        mixed = F.scaled_dot_product_attention(
            self._split(self.q_target(codes)),
            self._split(self.k_ctx(before)),
            self._split(self.v_ctx(before)),
            is_causal=True,
        )
        return self.c_proj(mixed.transpose(1, 2).flatten(2))

    def _split(self, entries: Tensor) -> Tensor:
        """``[context, head, token, entry]``"""
        return entries.unflatten(2, (self.heads, -1)).transpose(1, 2)


def check_heads(width: int, *, heads: int, bottleneck: int) -> None:
    """Refuse a width that cannot be divided among the heads.

    Raises:
        ValueRangeError: if it is no multiple of ``heads * bottleneck``.
    """
    if min(width, heads, bottleneck) < 1 or width % (heads * bottleneck):
        raise ValueRangeError(
            f"width must be a multiple of heads * bottleneck; got width={width}, heads={heads}, "
            f"bottleneck={bottleneck}. Lower the bottleneck, which divides the width of queries "
            "and keys."
        )


def _zero_linear(d_in: int, d_out: int) -> nn.Linear:
    # Not torch's own start, which draws from the global generator.
    linear = nn.Linear(d_in, d_out, device="meta").to_empty(device="cpu")
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
