"""Exact selections at half the cost of the encoder's product: bfloat16 tells where to look.

On processors with products of bfloat16 the pre-activations are first made in bfloat16, together
with a bound on how far each is from the exact one. What may be among the selected by that bound,
a few more than are selected in the end, is then computed in float32 from the weights themselves.
The selection and its values are those of the dense float32 product up to its own rounding.

The bound: with x̂ and ŵ what x and w are rounded to, u = 2^-9 the rounding error of bfloat16 and
|ŵ - w| ≤ u |w|,

    |x̂ ŵ - x w| ≤ |x̂ - x| |ŵ| + |x| |ŵ - w| ≤ |w| ((1 + u) |x̂ - x| + u |x|);

to which come the sum's own error, at most d 2^-23 |x̂| |ŵ|, and the rounding of the result.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.decompositions.bags import join_bags, pad_bags, rows_of
from modelassay.decompositions.kernels_torch import GROUP, TORCH
from modelassay.decompositions.selection import guess_bound

_ROUNDING = 2.0**-9  # of bfloat16, relative
_SUM_ROUNDING = 2.0**-23
_CUSHION = 1.1  # over the bound, for terms of second order: ours
_LEAST_PRODUCT = 2**20  # entries of an encoder from which on the detour pays: ours, measured
_CANDIDATES = 1 / 48  # of all entries; with more the dense product is faster: ours, measured
_SAMPLE = 64  # tokens that show how many candidates there are: ours
_CHUNK_TOKENS = 1024

Bags = tuple[Float[Tensor, " entry"], Int[Tensor, " entry"], Int[Tensor, " token"]]

_allowed: ContextVar[bool | None] = ContextVar("screening", default=None)


@contextmanager
def screening(allowed: bool) -> Generator[None]:
    """Inside the ``with`` block, and in this thread only, always or never screen.

    Without it, encoders of at least a million entries are screened where the processor has
    products of bfloat16.
    """
    token = _allowed.set(allowed)
    try:
        yield
    finally:
        _allowed.reset(token)


def screens(x: Float[Tensor, "token d_in"], W_enc: Float[Tensor, "d_in width"]) -> bool:
    """Whether selections from ``x @ W_enc`` are screened."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or W_enc.dtype != torch.float32:
        return False
    allowed = _allowed.get()
    if allowed is not None:
        return allowed and len(x) > 0
    return W_enc.numel() >= _LEAST_PRODUCT and len(x) > _SAMPLE and _has_bfloat16_products()


def _has_bfloat16_products() -> bool:
    # No public name tells; a torch without this one does without.
    found = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(found and found())


@dataclass(frozen=True, kw_only=True, slots=True)
class Screen:
    """An encoder, the same in bfloat16, and what bounds their difference."""

    W_enc: Float[Tensor, "d_in width"]
    bias: Float[Tensor, " width"]
    rough: Float[Tensor, "d_in width"]
    """W_enc in bfloat16."""
    rough_bias: Float[Tensor, " width"]
    longest: float
    """Norm of the longest column."""
    largest_bias: float

    @classmethod
    def of(cls, W_enc: Float[Tensor, "d_in width"], bias: Float[Tensor, " width"]) -> "Screen":
        """Of an encoder."""
        rows = W_enc.t()
        return cls(
            W_enc=W_enc,
            bias=bias,
            rough=rows.bfloat16().t(),
            rough_bias=bias.bfloat16(),
            longest=float(rows.norm(dim=1).max()),
            largest_bias=float(bias.abs().max()),
        )

    def chunks(
        self,
        x: Float[Tensor, "token d_in"],
        centre: Float[Tensor, " d_in"] | None,
        buffer: Float[Tensor, "chunk width"] | None,
    ) -> Iterator["Look"]:
        """Rough pre-activations, some tokens at a time, always in the same memory."""
        width = self.W_enc.shape[1]
        if buffer is None:
            memory = x.new_empty(min(len(x), _CHUNK_TOKENS), width, dtype=torch.bfloat16)
        else:
            halves = buffer.flatten().view(torch.bfloat16)
            memory = halves[: buffer.numel()].view(buffer.shape)
        for chunk in x.split(len(memory)):
            centred = chunk if centre is None else chunk - centre
            rounded = centred.bfloat16()
            pre = torch.addmm(self.rough_bias, rounded, self.rough, out=memory[: len(chunk)])
            yield Look(screen=self, x=centred, pre=pre, apart=self._apart(centred, rounded))

    def _apart(self, x: Tensor, rounded: Tensor) -> Tensor:
        """Bound of every token's rough products from the exact ones, [token, 1]."""
        size = x.norm(dim=1, keepdim=True)
        lost = (rounded - x).norm(dim=1, keepdim=True)
        most = (1 + _ROUNDING) * lost + (_ROUNDING + 1.1 * x.shape[1] * _SUM_ROUNDING) * size
        return self.longest * most + _ROUNDING * self.largest_bias


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Rough pre-activations of some tokens."""

    screen: Screen
    x: Float[Tensor, "token d_in"]
    """Centred."""
    pre: Float[Tensor, "token width"]
    """In bfloat16."""
    apart: Float[Tensor, "token 1"]
    """No product is further from the exact one, before the result is rounded."""

    def below(self, bound: Float[Tensor, "token 1"], times: int = 1) -> Float[Tensor, "token 1"]:
        """What the rough value exceeds wherever the exact one exceeds a bound.

        Args:
            bound: of every token.
            times: 2 for a bound that is a rough value itself.
        """
        # The product and its sum with the bias are rounded, one after the other.
        result = _ROUNDING * (2 * bound.abs() + self.screen.largest_bias)
        lower = bound - _CUSHION * times * (self.apart + result)
        return lower - 2 * _ROUNDING * lower.abs()  # for it is compared in bfloat16

    def above(self, lower: Float[Tensor, "token 1"]) -> Bags:
        """Exact values wherever the rough one exceeds a bound."""
        screen = self.screen
        _, indices, offsets = TORCH.above(self.pre, lower.bfloat16())
        products = TORCH.sampled_products(self.x, screen.W_enc.t(), indices, offsets)
        return products + screen.bias.index_select(0, indices), indices, offsets

    def below_topk(self, k: int) -> Float[Tensor, "token 1"]:
        """What the rough values of every token's k largest exact ones exceed."""
        n_tokens, width = self.pre.shape
        # k groups have a maximum of at least the k-th largest one, so k rough values have.
        maxima = self.pre.view(n_tokens, GROUP, width // GROUP).amax(1).float()
        reached = maxima.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
        return self.below(reached, times=2)

    def few_exceed(self, lower: Float[Tensor, "token 1"]) -> bool:
        """Whether so few rough values exceed a bound that the detour pays."""
        return int((self.pre > lower).sum()) < _CANDIDATES * self.pre.numel()

    def is_finite(self) -> bool:
        """Whether all bounds are numbers: they are not if a weight or an activation is none."""
        return bool(self.apart.isfinite().all())


def screened_topk(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    k: int,
    centre: Float[Tensor, " d_in"] | None,
    buffer: Float[Tensor, "chunk width"] | None,
) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]] | None:
    """The k largest pre-activations of every token; see `kernels.encode_topk`.

    Returns:
        Values and latents, where a value that is not positive may be 0 in the place of another;
        None where the product in float32 is faster.
    """
    width = W_enc.shape[1]
    if not screens(x, W_enc) or width % GROUP or 2 * k > width // GROUP:
        return None
    screen = Screen.of(W_enc, b_enc)
    few = next(screen.chunks(x[_spread(x)], centre, buffer))
    if not few.few_exceed(few.below_topk(k)):
        return None
    values, indices = [], []
    for look in screen.chunks(x, centre, buffer):
        if not look.is_finite():
            return None
        candidates, latents = pad_bags(*look.above(look.below_topk(k)))
        # Where all is 0, rough and exact, nothing exceeds the bound.
        empty = (0, max(0, k - candidates.shape[1]))
        candidates, latents = F.pad(candidates, empty), F.pad(latents, empty)
        best, places = candidates.topk(k, dim=1, sorted=False)
        values.append(best)
        indices.append(latents.gather(1, places))
    return torch.cat(values), torch.cat(indices)


def screened_batch_topk(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    k: int,
    centre: Float[Tensor, " d_in"] | None,
    buffer: Float[Tensor, "chunk width"] | None,
) -> Bags | None:
    """At least the ``k * tokens`` largest positive pre-activations of a batch.

    Returns:
        All pre-activations above some bound; None where the product in float32 is faster, or
        where fewer are positive.
    """
    if not screens(x, W_enc):
        return None
    screen = Screen.of(W_enc, b_enc)
    few = next(screen.chunks(x[_spread(x)], centre, buffer))
    bound = guess_bound(few.pre.float(), k)
    found = _above(screen, x, x.new_full((len(x), 1), bound), centre, buffer)
    if found is None or found[0].numel() < k * len(x):
        return None
    return found


def screened_above(
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    bound: Float[Tensor, "token 1"],
    centre: Float[Tensor, " d_in"] | None,
    buffer: Float[Tensor, "chunk width"] | None,
) -> Bags | None:
    """All pre-activations above their token's bound; None where float32 is faster."""
    if not screens(x, W_enc):
        return None
    return _above(Screen.of(W_enc, b_enc), x, bound, centre, buffer)


def _above(
    screen: Screen, x: Tensor, bound: Tensor, centre: Tensor | None, buffer: Tensor | None
) -> Bags | None:
    few = _spread(x)
    look = next(screen.chunks(x[few], centre, buffer))
    if not look.few_exceed(look.below(bound[few][: len(look.x)])):
        return None
    bags, done = [], 0
    for look in screen.chunks(x, centre, buffer):
        if not look.is_finite():
            return None
        wanted = bound[done : done + len(look.x)]
        values, indices, offsets = look.above(look.below(wanted))
        lowest = wanted.squeeze(1)[rows_of(offsets, values.numel())]
        kept = (values > lowest).nonzero().squeeze(1)
        bags.append((values[kept], indices[kept], torch.searchsorted(kept, offsets)))
        done += len(look.x)
    return join_bags(bags)


def _spread(x: Tensor) -> slice:
    """Some tokens of a batch, at an odd distance: of all residues of a stride."""
    return slice(None, None, len(x) // _SAMPLE | 1)
