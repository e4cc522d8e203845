"""The encoder's product in bfloat16, with everything that is learnt from it in float32.

The product of a batch with the encoder is the one dense product of a sparse step. In bfloat16 it
decides only *which* latents are active, where they are compared with each other; the values of
those chosen are then computed anew from the float32 weights, which costs as little as decoding
them. Weights, moments, thresholds, gradients and losses are float32 throughout.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.kernels import with_encoder_gradient
from modelassay.decompositions.kernels_interface import kernels_for
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.fitting.options import Precision

_FIRST_FAST_CAPABILITY = (8, 0)  # NVIDIA's Ampere: the first with bfloat16 tensor cores


def resolve_precision(precision: Precision, device: torch.device) -> Literal["float32", "bfloat16"]:
    """What ``auto`` means on a device.

    bfloat16 on CUDA devices with tensor cores for it. float32 elsewhere: a product in bfloat16 took
    5.5 times as long as one in float32 on the CPU that this was measured on. It does not depend on
    a measurement at the start, so that a resumed run never changes its precision.
    """
    if precision != "auto":
        return precision
    if device.type != "cuda" or not torch.cuda.is_available():
        return "float32"
    fast = torch.cuda.get_device_capability(device) >= _FIRST_FAST_CAPABILITY
    return "bfloat16" if fast else "float32"


def encode_in_bfloat16(activation: Sparsifier, batch: EncoderBatch) -> BatchCodes:
    """Codes of a float32 batch, differentiable, from an encoder product in bfloat16.

    Where latents are compared (TopK, BatchTopK…), the choice is made in bfloat16 and the values of
    the chosen are those of float32; a value that turns out to have the other sign is 0. A pair of
    latents within one part in 256 of each other may so change places. Where each latent is chosen
    on its own (ReLU, JumpReLU), the pre-activations themselves are rounded, and so are the inputs
    of the product that makes their gradient; JumpReLU uses them only while many latents pass, and
    float32 once it is sparse.
    """
    if not activation.compares_latents or not activation.values_are_pre_activations:
        return activation.encode(_with_coarse_products(batch))
    with torch.no_grad():
        chosen = activation.encode(_rounded(batch))
    if chosen.indices is None:
        return activation.encode(_with_coarse_products(batch))
    exact = _exact_values(chosen.values, chosen.indices, chosen.offsets, batch)
    values = with_encoder_gradient(
        exact, chosen.indices, batch.x, batch.W_enc, batch.b_enc, batch.centre, chosen.offsets
    )
    return replace(chosen, values=values)


def _rounded(batch: EncoderBatch) -> EncoderBatch:
    """The batch in bfloat16, with twice as many rows in the same memory."""
    buffer = batch.buffer
    if buffer is not None:
        buffer = buffer.view(-1).view(torch.bfloat16).view(-1, buffer.shape[1])
    centred = batch.x if batch.centre is None else batch.x - batch.centre
    return replace(
        batch,
        x=centred.bfloat16(),
        W_enc=batch.W_enc.bfloat16(),
        b_enc=batch.b_enc.bfloat16(),
        centre=None,
        buffer=buffer,
    )


@torch.no_grad()
def _exact_values(
    coarse: Float[Tensor, "*selected"],
    indices: Int[Tensor, "*selected"],
    offsets: Int[Tensor, " token"] | None,
    batch: EncoderBatch,
) -> Float[Tensor, "*selected"]:
    """The float32 pre-activations where `coarse` is not 0, as far as they have its sign."""
    centred = batch.x if batch.centre is None else batch.x - batch.centre
    products = kernels_for(batch.x.device).sampled_products(
        centred, batch.W_enc.t(), indices, offsets
    )
    exact = products + batch.b_enc[indices]
    return exact * (exact.sign() == coarse.sign())


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class _CoarseBatch(EncoderBatch):
    """A float32 batch whose dense pre-activations come from a product in bfloat16."""

    def pre_activations(self) -> Float[Tensor, "token width"]:
        centred = self.x if self.centre is None else self.x - self.centre
        return _Product.apply(centred, self.W_enc) + self.b_enc


def _with_coarse_products(batch: EncoderBatch) -> EncoderBatch:
    return _CoarseBatch(
        **{name: getattr(batch, name) for name in EncoderBatch.__dataclass_fields__}
    )


class _Product(torch.autograd.Function):
    """``left @ right`` and its gradients: factors in bfloat16, results in float32."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        coarse = left.bfloat16(), right.bfloat16()
        ctx.save_for_backward(*coarse)
        return _multiply(*coarse)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by its decorator
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        gradient = grad_outputs[0].bfloat16()
        left, right = ctx.saved_tensors
        needs_left, needs_right = ctx.needs_input_grad
        return (
            _multiply(gradient, right.t()) if needs_left else None,
            # Transposed twice, so that the gradient lies in memory as the encoder does.
            _multiply(gradient.t(), left).t() if needs_right else None,
        )


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """A product of bfloat16 factors in float32; on CPU, PyTorch rounds it to bfloat16 first."""
    if left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return torch.mm(left, right).float()
