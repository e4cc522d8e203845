"""The library's sparsifiers."""

from collections.abc import Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.encoders import encode_above, encode_slots, jump
from modelassay.decompositions.kernels import encode_batch_topk, encode_topk
from modelassay.decompositions.kernels_torch import looks_freely
from modelassay.decompositions.selection import above, abs_topk, group_max, pad_bags, topk
from modelassay.decompositions.sparsifier import (
    BatchSparsifier,
    Sparsifier,
    register_sparsifier,
)


class _KeepsK(Sparsifier):
    """Keeps k latents a token by comparing them with each other."""

    compares_latents = True

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def settings(self) -> dict[str, Any]:
        """k."""
        return {"k": self.k}


@final
@register_sparsifier
class TopKActivation(_KeepsK):
    """Keep the k largest of every token, as far as they are positive.

    Reference: Gao et al. 2024, section 2.3.
    """

    kind = "topk"
    label = "TopK"
    varies_k = True

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        values, indices = topk(pre, self.k)
        return values.relu(), indices

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch; see `Sparsifier.encode`."""
        k = batch.k or self.k
        values, indices = encode_topk(
            batch.x, batch.W_enc, batch.b_enc, k, centre=batch.centre, buffer=batch.buffer
        )
        return BatchCodes(values=values, indices=indices)


@final
@register_sparsifier
class BatchTopKActivation(BatchSparsifier):
    """Keep what exceeds one threshold, calibrated so that k per token do on average.

    Training compares the tokens of a batch instead; inference must not, because a token's code
    would then depend on its neighbours.

    Reference: Bussmann, Leask, Nanda 2024, section 3.
    """

    kind = "batchtopk"
    label = "BatchTopK"
    compares_latents = True
    varies_k = True
    threshold: Float[Tensor, ""]
    """In units of pre-activations; NaN until it is calibrated."""

    def __init__(self, k: int, threshold: float | None = None) -> None:
        super().__init__()
        self.k = k
        value = float("nan") if threshold is None else threshold
        self.register_buffer("threshold", torch.tensor(value, dtype=torch.float32))

    def settings(self) -> dict[str, Any]:
        """k."""
        return {"k": self.k}

    @classmethod
    def read(
        cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> "BatchTopKActivation":
        """See `Sparsifier.read`."""
        return cls(settings["k"], float(tensors["threshold"]))

    def calibrate(self, threshold: float) -> None:
        """Set the threshold: what is greater is active."""
        self.threshold.fill_(threshold)

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents.

        Raises:
            ValueRangeError: if the threshold was never calibrated.
        """
        if bool(self.threshold.isnan()):
            raise ValueRangeError(
                "A BatchTopK dictionary must have a calibrated threshold to encode; got none. "
                "Fit it to the end, or call activation.calibrate(threshold)."
            )
        return pad_bags(*above(pre, self.threshold.clamp(min=0)))

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """The ``k * tokens`` largest of the batch; see `Sparsifier.encode`."""
        k = batch.k or self.k
        values, indices, offsets = encode_batch_topk(
            batch.x, batch.W_enc, batch.b_enc, k, centre=batch.centre, buffer=batch.buffer
        )
        return BatchCodes(values=values, indices=indices, offsets=offsets)

    def in_units_of_pre_activations(self) -> tuple[Tensor, ...]:
        """The threshold."""
        return (self.threshold,)


@final
@register_sparsifier
class AbsTopKActivation(_KeepsK):
    """Keep the k entries of every token that are largest in magnitude, with their signs.

    Reference: Zhu, Khalili, Zhu 2025, "AbsTopK".
    """

    kind = "abstopk"
    label = "AbsTopK"
    signed = True
    varies_k = True

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        return abs_topk(pre, self.k)

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch; see `Sparsifier.encode`."""
        k = batch.k or self.k
        values, indices = encode_slots(
            batch.x,
            batch.W_enc,
            batch.b_enc,
            lambda pre: abs_topk(pre, k),
            centre=batch.centre,
            buffer=batch.buffer,
        )
        return BatchCodes(values=values, indices=indices)


@final
@register_sparsifier
class GroupMaxActivation(_KeepsK):
    """Keep the largest of each of k groups of consecutive latents, as far as it is positive.

    Reference: Srivastava et al. 2013, "Compete to compute", section 3; as the sparsifier of a
    dictionary in EleutherAI's sparsify.
    """

    kind = "groupmax"
    label = "GroupMax"

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        values, indices = group_max(pre, self.k)
        return values.relu(), indices


@final
@register_sparsifier
class ReLUActivation(Sparsifier):
    """Keep what is positive."""

    kind = "relu"
    label = "ReLU"

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        return pad_bags(*above(pre, 0.0))

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch: sparse where a look shows that few are positive, and is free."""
        found = None
        if looks_freely(batch.x.device):
            zeros = torch.zeros_like(batch.b_enc)
            found = encode_above(
                batch.x, batch.W_enc, batch.b_enc, zeros, centre=batch.centre, buffer=batch.buffer
            )
        if found is None:
            return BatchCodes(values=batch.pre_activations().relu())
        values, indices, offsets = found
        return BatchCodes(values=values, indices=indices, offsets=offsets)


@final
@register_sparsifier
class JumpReLUActivation(Sparsifier):
    """Keep what is positive and exceeds its latent's threshold, at its full value.

    Reference: Rajamanoharan et al. 2024, section 3.
    """

    kind = "jumprelu"
    label = "JumpReLU"
    threshold: Float[nn.Parameter, " width"]
    """In units of pre-activations; trained by the `JumpReLU` recipe."""

    def __init__(self, threshold: Float[Tensor, " width"]) -> None:
        super().__init__()
        self.threshold = nn.Parameter(threshold.detach().clone())

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        return pad_bags(*above(pre, self.threshold.clamp(min=0)))

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch with straight-through gradients; see `jump`."""
        found = encode_above(
            batch.x,
            batch.W_enc,
            batch.b_enc,
            self.threshold.detach(),
            centre=batch.centre,
            buffer=batch.buffer,
            # Entries a little below the threshold have value 0 and yet move it.
            margin=batch.bandwidth / 2,
            stride=batch.window_stride,
        )
        if found is None:
            values, active = jump(batch.pre_activations(), self.threshold, batch.bandwidth)
            return BatchCodes(values=values, active=active)
        pre, indices, offsets = found
        thresholds = self.threshold.index_select(0, indices)
        values, active = jump(pre, thresholds, batch.bandwidth, float(batch.window_stride))
        return BatchCodes(values=values, indices=indices, offsets=offsets, active=active)

    def in_units_of_pre_activations(self) -> tuple[Tensor, ...]:
        """The thresholds."""
        return (self.threshold,)

    def project(self) -> None:
        """Keep thresholds from falling below 0, where they would let negative values pass."""
        self.threshold.data.clamp_(min=0)
