"""The sparsifier of orthogonal matching pursuit: every round fits all values chosen so far anew."""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.kernels import pre_activation_chunks
from modelassay.decompositions.kernels_interface import Kernels, kernels_for
from modelassay.decompositions.least_squares import (
    CHUNK_ENTRIES,
    nonnegative_least_squares,
    solve,
)
from modelassay.decompositions.pursuit_rounds import Rounds
from modelassay.decompositions.sparsifier import register_sparsifier

_NOTHING_LEFT = 10  # units of rounding of the first round's pre-activation (ours)
_ASYMMETRIC = 1e-2  # of the largest overlap: more is no rounding, of bfloat16 either (ours)


@final
@register_sparsifier
class OrthogonalPursuitActivation(Rounds):
    """Take the largest of what is left of the pre-activations; fit all that was taken; again.

    With p the pre-activations and ``M = W_dec W_enc``, k times: ``i = argmax (p - z M)`` joins the
    support S, and z is the non-negative solution of least squares on it: ``z >= 0``, ``p_S - z
    M_SS <= 0``, and their product is 0. For a decoder of unit rows and its transpose as the encoder
    this is non-negative orthogonal matching pursuit on ``x - b_dec``. A change of the input's basis
    leaves p and M as they are, and so may be folded into the weights.

    Reference: Pati, Rezaiifar and Krishnaprasad 1993; non-negative: Bruckstein, Elad and Zibulevsky
    2008.
    """

    kind = "orthogonal_matching_pursuit"
    label = "Orthogonal matching pursuit"

    def select_with(
        self,
        pre: Float[Tensor, "token width"],
        W_enc: Float[Tensor, "d_in width"],
        W_dec: Float[Tensor, "width d_in"],
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents; see `Sparsifier.select_with`.

        Raises:
            ValueRangeError: if the encoder is not the decoder's transpose in any basis.
        """
        found = _pursue(pre.detach(), W_enc, W_dec, self.k, self.tolerance)
        return found.values.to(pre.dtype), found.chosen

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch; see `Sparsifier.encode`.

        Raises:
            ValueRangeError: if the batch has no decoder, or the encoder is not its transpose in
                any basis.
        """
        W_enc, W_dec, k = batch.W_enc, batch.W_dec, batch.k or self.k
        if W_dec is None:
            raise ValueRangeError(
                "Orthogonal matching pursuit must know how latents overlap; got a batch without "
                "W_dec. Pass the decoder to EncoderBatch."
            )
        with torch.no_grad():
            chunks = pre_activation_chunks(batch.x, W_enc, batch.b_enc, batch.centre, batch.buffer)
            found = _Fitted.joined(
                [_pursue(pre, W_enc, W_dec, k, self.tolerance) for pre in chunks]
            )
        values = _WithLeastSquaresGradient.apply(
            found, batch.x, W_enc, batch.b_enc, batch.centre, W_dec, kernels_for(batch.x.device)
        )
        return BatchCodes(values=values, indices=found.chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """Supports and what was fitted on them; slots without a latent hold zeros."""

    values: Float64[Tensor, "token slot"]
    chosen: Int[Tensor, "token slot"]
    gram: Float64[Tensor, "token slot slot"]
    """``M_SS`` of every token."""

    @staticmethod
    def joined(parts: list["_Fitted"]) -> "_Fitted":
        """Those of some tokens after those of others."""
        if len(parts) == 1:
            return parts[0]
        return _Fitted(
            values=torch.cat([part.values for part in parts]),
            chosen=torch.cat([part.chosen for part in parts]),
            gram=torch.cat([part.gram for part in parts]),
        )


@torch.no_grad()
def _pursue(
    pre: Float[Tensor, "token width"],
    W_enc: Float[Tensor, "d_in width"],
    W_dec: Float[Tensor, "width d_in"],
    k: int,
    tolerance: float,
) -> _Fitted:
    """Supports and values of k rounds."""
    rows = max(1, CHUNK_ENTRIES // (pre.shape[1] + 2 * k * len(W_enc)))
    parts = pre.split(rows) if len(pre) else (pre,)
    return _Fitted.joined([_pursue_part(part, W_enc, W_dec, k, tolerance) for part in parts])


def _pursue_part(pre: Tensor, W_enc: Tensor, W_dec: Tensor, k: int, tolerance: float) -> _Fitted:
    n, columns = len(pre), W_enc.t()
    exact: dict[str, Any] = {"dtype": torch.float64, "device": pre.device}
    encoders, decoders = (torch.zeros(n, k, len(W_enc), **exact) for _ in range(2))
    gram, apart = torch.zeros(n, k, k, **exact), torch.zeros(n, k, k, **exact)
    moment, values = torch.zeros(n, k, **exact), torch.zeros(n, k, **exact)
    chosen = torch.zeros(n, k, dtype=torch.int64, device=pre.device)
    least = max(tolerance, _NOTHING_LEFT * torch.finfo(pre.dtype).eps)
    floor: Tensor | None = None
    left = pre.clone()
    for slot in range(k):
        largest, best = left.max(1)
        floor = (least * largest).clamp_(min=0) if floor is None else floor
        goes_on = largest > floor
        chosen[:, slot] = best * goes_on
        taken = goes_on.unsqueeze(1)
        encoders[:, slot] = columns[best].double() * taken
        decoders[:, slot] = W_dec[best].double() * taken
        so_far = slice(slot + 1)
        one = (decoders[:, so_far] @ encoders[:, slot].unsqueeze(2)).squeeze(2)
        other = (encoders[:, so_far] @ decoders[:, slot].unsqueeze(2)).squeeze(2)
        gram[:, slot, so_far] = gram[:, so_far, slot] = (one + other) / 2
        apart[:, slot, so_far] = one - other
        moment[:, slot] = pre.gather(1, best.unsqueeze(1)).squeeze(1) * goes_on
        # Those that ended are solved already, and cost nothing.
        values[:, so_far] = nonnegative_least_squares(
            gram[:, so_far, so_far], moment[:, so_far], values[:, so_far]
        )
        if slot + 1 < k:
            explained = (values[:, so_far].unsqueeze(1) @ decoders[:, so_far]).squeeze(1)
            torch.addmm(pre, explained.to(pre.dtype), W_enc, alpha=-1, out=left)
            left.scatter_(1, chosen[:, so_far], -torch.inf)
    _check_symmetric(gram, apart)
    return _Fitted(values=values, chosen=chosen, gram=gram)


def _check_symmetric(
    gram: Float64[Tensor, "token slot slot"], apart: Float64[Tensor, "token slot slot"]
) -> None:
    """Refuse an encoder and a decoder between which least squares mean nothing."""
    if not gram.numel():
        return
    difference, largest = float(apart.abs().max()), float(gram.abs().max())
    if difference > _ASYMMETRIC * largest:
        raise ValueRangeError(
            "Orthogonal matching pursuit needs an encoder that is its decoder's transpose, in some "
            f"basis of the input; got overlaps of two latents that differ by {difference:.2g}, of "
            f"{largest:.2g} at most. Tie the weights, or use matching pursuit."
        )


class _WithLeastSquaresGradient(torch.autograd.Function):
    """Values of a least-squares solution with their exact gradient, given which are positive.

    On the positive slots F, ``G z = p``, p the pre-activations and ``G = (M + M^T) / 2``. With g
    the gradient by z and ``u = G^(-1) g``, zero outside of F, e_j the encoder's column and d_j the
    decoder's row of slot j:

        by x: sum_j u_j e_j;
        by e_j: u_j (x - z W_dec / 2) - z_j (u W_dec) / 2;
        by d_j: -(u_j (z W_enc^T) + z_j (u W_enc^T)) / 2.

    Which latents were chosen, and which of them stay at zero, does not change within some
    neighbourhood of almost every input, so that this is the gradient of the whole.
    """

    @staticmethod
    def forward(
        ctx: Any,
        found: _Fitted,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        centre: Tensor | None,
        W_dec: Tensor,
        kernels: Kernels,
    ) -> Tensor:
        del b_enc
        ctx.kernels = kernels
        ctx.save_for_backward(found.values, found.chosen, found.gram, x, W_enc, centre, W_dec)
        return found.values.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        exact, chosen, gram, x, W_enc, centre, W_dec = ctx.saved_tensors
        kernels: Kernels = ctx.kernels
        u = solve(gram, grad_outputs[0].double(), exact > 0).to(x.dtype)
        z, columns = exact.to(x.dtype), W_enc.t().contiguous()

        def weighted(weights: Tensor, rows: Tensor) -> Tensor:
            return kernels.weighted_sum(weights, chosen, rows, None)

        def by_latent(weights: Tensor, rows: Tensor) -> Tensor:
            return kernels.sum_by_latent(weights, chosen, rows, len(W_dec), None)

        pulls = weighted(u, columns)
        centred = x if centre is None else x - centre
        by_enc = by_latent(u, centred - weighted(z, W_dec) / 2)
        by_enc -= by_latent(z, weighted(u, W_dec) / 2)
        by_dec = by_latent(u, weighted(z, columns) / -2) - by_latent(z, pulls / 2)
        by_bias = W_enc.new_zeros(W_enc.shape[1]).index_add_(0, chosen.flatten(), u.flatten())
        by_centre = None if centre is None else -(W_enc @ by_bias)
        by_x = pulls if ctx.needs_input_grad[1] else None
        return None, by_x, by_enc.t(), by_bias, by_centre, by_dec, None
