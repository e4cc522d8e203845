"""Matching pursuit that ends by the residual's length: the form that SAELens trains and stores."""

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.kernels_interface import kernels_for
from modelassay.decompositions.matching_pursuit import merged_rounds, with_pursuit_gradient
from modelassay.decompositions.sparsifier import Sparsifier, register_sparsifier


@final
@register_sparsifier
class ResidualPursuitActivation(Sparsifier):
    """Rounds of matching pursuit on the residual itself, until it is short or repeats a latent.

    With ``r = x - b_dec``, at most k times: ``i = argmax r W_enc + b_enc``, ``z_i += p_i``, ``r -=
    p_i W_dec_i``. A token's rounds end after the one that leaves ``|r|`` below `residual`, that
    found nothing positive or, if `ends_at_repeats`, that chose what was chosen before. As the
    residual's length cannot be told from pre-activations, every round costs a product with the
    whole encoder: `MatchingPursuitActivation` is for fits of our own.

    Reference: Costa et al. 2025, with the rules of SAELens for ending.
    """

    kind = "residual_matching_pursuit"
    label = "Matching pursuit to a residual"
    compares_latents = True
    values_are_pre_activations = False
    residual: Tensor

    def __init__(
        self, k: int, residual: float | Float[Tensor, ""] = 0.0, *, ends_at_repeats: bool = True
    ) -> None:
        """Make a sparsifier.

        Args:
            k: the most rounds.
            residual: length of the residual below which rounds end, in units of the activations;
                0 for k rounds.
            ends_at_repeats: whether rounds end with the first that adds no new latent.
        """
        super().__init__()
        self.k, self.ends_at_repeats = k, ends_at_repeats
        self.register_buffer("residual", torch.as_tensor(residual).detach().clone())

    def settings(self) -> dict[str, Any]:
        """k, and whether repeats end the rounds."""
        return {"k": self.k, "ends_at_repeats": self.ends_at_repeats}

    @classmethod
    def read(
        cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "ResidualPursuitActivation":
        """See `Sparsifier.read`."""
        repeats = settings["ends_at_repeats"]
        return cls(settings["k"], tensors["residual"], ends_at_repeats=repeats)

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Refuse: pre-activations alone do not say what is left.

        Raises:
            ValueRangeError: always.
        """
        raise ValueRangeError(
            "This pursuit must know the activations themselves, whose residual ends it; got "
            f"pre-activations alone, {list(pre.shape)}. Use select_from."
        )

    def select_from(
        self,
        x: Float[Tensor, "token d_in"],
        pre: Float[Tensor, "token width"],
        W_enc: Float[Tensor, "d_in width"],
        b_enc: Float[Tensor, " width"],
        W_dec: Float[Tensor, "width d_in"],
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents; see `Sparsifier.select_from`."""
        taken, chosen = self._pursue(x.detach(), pre.detach(), W_enc, b_enc, W_dec)
        return merged_rounds(taken, chosen), chosen

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch; see `Sparsifier.encode`.

        Raises:
            ValueRangeError: if the batch has no decoder.
        """
        W_enc, b_enc, W_dec = batch.W_enc, batch.b_enc, batch.W_dec
        if W_dec is None:
            raise ValueRangeError(
                "Matching pursuit must know how latents overlap; got a batch without W_dec. "
                "Pass the decoder to EncoderBatch."
            )
        with torch.no_grad():
            x = batch.x if batch.centre is None else batch.x - batch.centre
            pre = torch.addmm(b_enc, x, W_enc)
            taken, chosen = self._pursue(x, pre, W_enc, b_enc, W_dec)
        values = with_pursuit_gradient(
            taken, chosen, batch.x, W_enc, b_enc, batch.centre, W_dec, kernels_for(x.device)
        )
        return BatchCodes(values=values, indices=chosen)

    @torch.no_grad()
    def _pursue(
        self, x: Tensor, pre: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor
    ) -> tuple[Float[Tensor, "token round"], Int[Tensor, "token round"]]:
        """What was taken in every round until all tokens have ended, and of which latent."""
        taken: list[Tensor] = []
        chosen: list[Tensor] = []
        going = torch.ones(len(x), dtype=torch.bool, device=x.device)
        seen = torch.zeros_like(pre, dtype=torch.bool)
        left = x
        for number in range(self.k):
            pre = torch.addmm(b_enc, left, W_enc) if number else pre
            largest, latents = pre.max(1)
            amounts = torch.where(going, largest, 0).clamp_(min=0)
            taken.append(amounts)
            chosen.append(latents)
            left = left - amounts.unsqueeze(1) * W_dec[latents]
            going &= ~self._ends(amounts, latents, left, seen)
            if not bool(going.any()):
                break
        return torch.stack(taken, 1), torch.stack(chosen, 1)

    def _ends(
        self,
        amounts: Float[Tensor, " token"],
        latents: Int[Tensor, " token"],
        left: Float[Tensor, "token d_in"],
        seen: Bool[Tensor, "token width"],
    ) -> Bool[Tensor, " token"]:
        """Which tokens' rounds end with this one; what it chose is noted as seen."""
        place = latents.unsqueeze(1)
        ends = (amounts <= 0) | (left.norm(dim=1) < self.residual)
        if self.ends_at_repeats:
            ends |= seen.gather(1, place).squeeze(1)
            seen.scatter_(1, place, True)
        return ends

    def in_units_of_pre_activations(self) -> tuple[Tensor, ...]:
        """The residual's length, which has the units of the activations."""
        return (self.residual,)
