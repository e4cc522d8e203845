"""Sparsifiers of which each process has some latents."""

from functools import singledispatch
from typing import final

from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.sparsifier import BatchSparsifier, Sparsifier
from modelassay.decompositions.sparsifiers import (
    AbsTopKActivation,
    BatchTopKActivation,
    GroupMaxActivation,
    TopKActivation,
)
from modelassay.fitting.distributed.encoders import encode_batch_topk, encode_topk
from modelassay.fitting.distributed.mesh import ProcessMesh


@singledispatch
def part_of(sparsifier: Sparsifier, mesh: ProcessMesh, width: int) -> Sparsifier:
    """The sparsifier of the latents that this process holds, a module of its own.

    Its parameters and buffers are divided if there is one entry per latent, and copied if there
    is one in all.

    Args:
        sparsifier: that of the whole dictionary.
        mesh: the processes.
        width: latents in all.

    Raises:
        ValueRangeError: if it cannot be divided.
    """
    if mesh.latent_shards == 1:
        tensors = sparsifier.state_dict()
    else:
        trained = {name for name, _ in sparsifier.named_parameters()}
        tensors = {
            name: tensor
            if tensor.ndim == 0 and name not in trained
            else _part_of_tensor(name, tensor, mesh, width)
            for name, tensor in sparsifier.state_dict().items()
        }
    return type(sparsifier).read(sparsifier.settings(), tensors)


@part_of.register
def _(sparsifier: GroupMaxActivation, mesh: ProcessMesh, width: int) -> Sparsifier:
    if sparsifier.k % mesh.latent_shards:
        raise ValueRangeError(
            f"latent_shards must divide the number of groups, k={sparsifier.k}; got "
            f"{mesh.latent_shards}. A group may not lie on two processes: choose another number."
        )
    return GroupMaxActivation(sparsifier.k // mesh.latent_shards)


def _part_of_tensor(name: str, tensor: Tensor, mesh: ProcessMesh, width: int) -> Tensor:
    if tensor.ndim != 1 or len(tensor) != width:
        raise ValueRangeError(
            f"A sparsifier whose latents are divided must have one {name} per latent, {width}; "
            f"got the shape {list(tensor.shape)}. Use latent_shards=1."
        )
    mine = mesh.latents_of(width)
    return tensor[mine.start : mine.stop]


@singledispatch
def encode(
    sparsifier: Sparsifier, batch: EncoderBatch, mesh: ProcessMesh, width: int
) -> BatchCodes:
    """Codes of this process's tokens by its latents, as all processes together choose them.

    ``@encode.register`` adds a sparsifier that compares latents or tokens; the others need
    nothing.

    Args:
        sparsifier: what `part_of` made.
        batch: this process's tokens, and its part of the encoder.
        mesh: the processes.
        width: latents in all.

    Raises:
        ValueRangeError: if the sparsifier compares what it cannot see here.
    """
    divided = sparsifier.compares_latents and mesh.latent_shards > 1
    if divided or (isinstance(sparsifier, BatchSparsifier) and mesh.token_shards > 1):
        raise ValueRangeError(
            "A sparsifier that compares latents or tokens must have an encoder for many processes; "
            f"got {sparsifier.kind}. Fit it in one process, or register an encoder for it."
        )
    return sparsifier.encode(batch)


@encode.register
def _(
    sparsifier: GroupMaxActivation, batch: EncoderBatch, mesh: ProcessMesh, width: int
) -> BatchCodes:
    del mesh, width  # whole groups lie on one process
    return sparsifier.encode(batch)


@encode.register
def _(sparsifier: TopKActivation, batch: EncoderBatch, mesh: ProcessMesh, width: int) -> BatchCodes:
    return encode_topk(batch, batch.k or sparsifier.k, mesh, width)


@encode.register
def _(
    sparsifier: AbsTopKActivation, batch: EncoderBatch, mesh: ProcessMesh, width: int
) -> BatchCodes:
    return encode_topk(batch, batch.k or sparsifier.k, mesh, width, signed=True)


@encode.register
def _(
    sparsifier: BatchTopKActivation, batch: EncoderBatch, mesh: ProcessMesh, width: int
) -> BatchCodes:
    return encode_batch_topk(batch, batch.k or sparsifier.k, mesh, width)


@final
class AcrossProcesses(Sparsifier):
    """A sparsifier that encodes as all processes together choose, for what takes a sparsifier.

    Args:
        part: what `part_of` made.
        mesh: the processes.
        width: latents in all.
    """

    def __init__(self, part: Sparsifier, mesh: ProcessMesh, width: int) -> None:
        super().__init__()
        self._part, self._mesh, self._width = part, mesh, width

    @property
    def compares_latents(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the part does."""
        return self._part.compares_latents

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents at inference, of the part alone."""
        return self._part.select(pre)

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of this process's tokens by its latents; see `encode`."""
        return encode(self._part, batch, self._mesh, self._width)
