"""The sparsifier of matching pursuit: latents are chosen one by one, from what is left.

It never makes a residual. What one unit of latent i takes from all pre-activations is row i of the
overlaps ``W_dec W_enc``, so that the k rounds need but the pre-activations and these rows. The
gradient is exact and needs no graph of the rounds: see `_WithPursuitGradient`.
"""

from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.kernels import pre_activation_chunks
from modelassay.decompositions.kernels_interface import Kernels, kernels_for
from modelassay.decompositions.pursuit_rounds import Rounds
from modelassay.decompositions.sparsifier import register_sparsifier

_NOTHING_LEFT = 10  # units of rounding of the first round's pre-activation (ours)
_LARGEST_OVERLAPS = 2**28  # entries of all latents' overlaps, held at once: 1 GiB (ours)
_ROWS_IN_CACHE = 128  # tokens whose rounds are run together on CPU: ours, measured
_CHUNK_ENTRIES = 2**24  # numbers in the backward pass, held at once, a few times: ours

_Rounds = tuple[Float[Tensor, "token round"], Int[Tensor, "token round"]]
"""What was taken in every round, 0 after the last one, and of which latent."""


@final
@register_sparsifier
class MatchingPursuitActivation(Rounds):
    """Take the largest pre-activation, remove from the others what it explains, and again.

    With p the pre-activations, k times: ``i = argmax p``, ``z_i += p_i``, ``p -= p_i (W_dec
    W_enc)_i``. For a decoder of unit rows and its transpose as the encoder this is matching
    pursuit, p being what the residual correlates with; any other pair of encoder and decoder has
    its rounds too, so that a change of the input's basis can be folded into the weights. Rounds
    end early where nothing positive is left. A latent chosen again adds to its own value.

    Reference: Mallat and Zhang 1993; as the encoder of a trained dictionary, Costa et al. 2025,
    "From flat to hierarchical", section 3.
    """

    kind = "matching_pursuit"
    label = "Matching pursuit"

    def select_with(
        self,
        pre: Float[Tensor, "token width"],
        W_enc: Float[Tensor, "d_in width"],
        W_dec: Float[Tensor, "width d_in"],
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents; see `Sparsifier.select_with`."""
        overlaps = _overlaps(W_enc, W_dec, choices=len(pre) * self.k)
        taken, chosen = _pursue(
            pre.detach().clone(), W_enc, W_dec, overlaps, self.k, self.tolerance
        )
        return merged_rounds(taken, chosen), chosen

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch; see `Sparsifier.encode`.

        Raises:
            ValueRangeError: if the batch has no decoder.
        """
        W_enc, W_dec, k = batch.W_enc, batch.W_dec, batch.k or self.k
        if W_dec is None:
            raise ValueRangeError(
                "Matching pursuit must know how latents overlap; got a batch without W_dec. "
                "Pass the decoder to EncoderBatch."
            )
        with torch.no_grad():
            overlaps = _overlaps(W_enc, W_dec, choices=len(batch.x) * k)
            chunks = pre_activation_chunks(batch.x, W_enc, batch.b_enc, batch.centre, batch.buffer)
            found = [_pursue(pre, W_enc, W_dec, overlaps, k, self.tolerance) for pre in chunks]
            taken = torch.cat([amounts for amounts, _ in found])
            chosen = torch.cat([latents for _, latents in found])
        values = with_pursuit_gradient(
            taken,
            chosen,
            batch.x,
            W_enc,
            batch.b_enc,
            batch.centre,
            W_dec,
            kernels_for(batch.x.device),
        )
        return BatchCodes(values=values, indices=chosen)


@torch.no_grad()
def _overlaps(
    W_enc: Float[Tensor, "d_in width"], W_dec: Float[Tensor, "width d_in"], *, choices: int
) -> Float[Tensor, "width width"] | None:
    """All latents' overlaps, if making them costs less than making those of every choice."""
    width = W_enc.shape[1]
    return W_dec @ W_enc if choices > width and width**2 <= _LARGEST_OVERLAPS else None


@torch.no_grad()
def _pursue(
    pre: Float[Tensor, "token width"],
    W_enc: Float[Tensor, "d_in width"],
    W_dec: Float[Tensor, "width d_in"],
    overlaps: Float[Tensor, "width width"] | None,
    k: int,
    tolerance: float,
) -> _Rounds:
    """What is taken in k rounds; the pre-activations become what is left of them."""
    in_cache = overlaps is not None and pre.device.type == "cpu"
    parts = pre.split(_ROWS_IN_CACHE if in_cache else max(len(pre), 1))
    found = [_pursue_part(part, W_enc, W_dec, overlaps, k, tolerance) for part in parts]
    return torch.cat([taken for taken, _ in found]), torch.cat([chosen for _, chosen in found])


def _pursue_part(
    pre: Tensor, W_enc: Tensor, W_dec: Tensor, overlaps: Tensor | None, k: int, tolerance: float
) -> _Rounds:
    taken = pre.new_zeros(len(pre), k)
    chosen = torch.zeros(len(pre), k, dtype=torch.int64, device=pre.device)
    least = max(tolerance, _NOTHING_LEFT * torch.finfo(pre.dtype).eps)
    floor: Tensor | None = None
    taking = torch.empty_like(pre) if overlaps is not None else None
    for place in range(k):
        largest, latents = pre.max(1)
        floor = (least * largest).clamp_(min=0) if floor is None else floor
        amounts = torch.where(largest > floor, largest, 0)
        taken[:, place], chosen[:, place] = amounts, latents
        if overlaps is None:
            pre.addmm_(amounts.unsqueeze(1) * W_dec[latents], W_enc, alpha=-1)
        elif taking is not None:
            torch.index_select(overlaps, 0, latents, out=taking)
            pre.addcmul_(taking, amounts.unsqueeze(1), value=-1)
    return taken, chosen


def _places(chosen: Int[Tensor, "token round"]) -> Int[Tensor, "token round"]:
    """The round in which each round's latent was chosen first."""
    return _same(chosen).to(torch.int8).argmax(2)


def _same(chosen: Int[Tensor, "token round"]) -> Bool[Tensor, "token round round"]:
    return chosen.unsqueeze(2) == chosen.unsqueeze(1)


def merged_rounds(
    taken: Float[Tensor, "token round"], chosen: Int[Tensor, "token round"]
) -> Float[Tensor, "token round"]:
    """The sum of what a latent took, in the slot of its first round; other slots are empty."""
    return torch.zeros_like(taken).scatter_add_(1, _places(chosen), taken)


def with_pursuit_gradient(
    taken: Float[Tensor, "token round"],
    chosen: Int[Tensor, "token round"],
    x: Float[Tensor, "token d_in"],
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    centre: Float[Tensor, " d_in"] | None,
    W_dec: Float[Tensor, "width d_in"],
    kernels: Kernels,
) -> Float[Tensor, "token round"]:
    """`merged_rounds` with the exact gradient of the rounds, given what each of them chose.

    Args:
        taken: what every round took, 0 after the last one.
        chosen: the latent of every round.
        x: activations.
        W_enc: encoder.
        b_enc: encoder bias.
        centre: subtracted from x first.
        W_dec: decoder.
        kernels: what sums by latent in the backward pass.
    """
    return _WithPursuitGradient.apply(taken, chosen, x, W_enc, b_enc, centre, W_dec, kernels)


class _WithPursuitGradient(torch.autograd.Function):
    """Values of a pursuit with their exact gradient, given the order of choice.

    Let e_j be the encoder's column and d_j the decoder's row of round j, and L the lower
    triangular matrix of ``e_j d_l`` for l < j with ones on its diagonal. The rounds say ``L z =
    p``, p the pre-activations at the choices. With g the gradient by z and ``u = L^(-T) g``:

        by e_j: u_j r_j, r_j being what was left before the round;
        by d_l: -z_l sum_(j > l) u_j e_j;
        by x: sum_j u_j e_j.

    Nothing is kept of the rounds but the choices and amounts; the rest is made anew for some
    tokens at a time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        taken: Tensor,
        chosen: Tensor,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        centre: Tensor | None,
        W_dec: Tensor,
        kernels: Kernels,
    ) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(taken, chosen, x, W_enc, centre, W_dec)
        return merged_rounds(taken, chosen)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        taken, chosen, x, W_enc, centre, W_dec = ctx.saved_tensors
        # Every round of a latent has the gradient of its sum; rounds that took nothing have none.
        gradient = grad_outputs[0].gather(1, _places(chosen)) * (taken != 0)
        centred = x if centre is None else x - centre
        rows = max(1, _CHUNK_ENTRIES // max(chosen.shape[1] * len(W_enc), 1))
        by_enc, by_dec = torch.zeros_like(W_dec), torch.zeros_like(W_dec)
        by_bias = W_enc.new_zeros(W_enc.shape[1])
        by_x: list[Tensor] = []
        columns = W_enc.t()
        for g, z, latents, part in zip(
            *(tensor.split(rows) for tensor in (gradient, taken, chosen, centred)), strict=True
        ):
            encoders, decoders = columns[latents], W_dec[latents]
            overlaps = (encoders @ decoders.mT).tril_(-1)
            u = torch.linalg.solve_triangular(
                overlaps.mT, g.unsqueeze(2), upper=True, unitriangular=True
            )
            pulls = u * encoders
            before = _sums_before(z.unsqueeze(2) * decoders)
            add = ctx.kernels.sum_by_latent
            place = latents.reshape(-1, 1)
            left = (part.unsqueeze(1) - before).flatten(0, 1)
            by_enc += add(u.reshape(-1, 1), place, left, len(W_dec), None)
            after = pulls.sum(1, keepdim=True) - pulls - _sums_before(pulls)
            by_dec -= add(z.reshape(-1, 1), place, after.flatten(0, 1), len(W_dec), None)
            by_bias.index_add_(0, latents.flatten(), u.flatten())
            by_x.append(pulls.sum(1))
        by_centre = None if centre is None else -(W_enc @ by_bias)
        whole = torch.cat(by_x) if ctx.needs_input_grad[2] else None
        return None, None, whole, by_enc.t(), by_bias, by_centre, by_dec, None


def _sums_before(rows: Float[Tensor, "token round d"]) -> Float[Tensor, "token round d"]:
    """For every round, the sum of the rows of those before it."""
    return rows.cumsum(1) - rows
