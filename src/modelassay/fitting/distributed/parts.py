"""A dictionary divided by latents, and put together again."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.distributed.mesh import ProcessMesh
from modelassay.fitting.distributed.sparsifiers import part_of

_PER_LATENT = {"activation", "parametrisation"}
"""Modules whose parameters have one entry per latent, if they may be divided at all."""
_AXES = {"W_enc": 1, "b_enc": 0, "W_dec": 0, "silence": 0, "dead": 0}


def latent_axis(name: str, ndim: int) -> int | None:
    """Which axis of a tensor of a learner's state runs over latents; None if none does.

    A parameter's moments lie as it does; the number of steps is one number.

    Args:
        name: that of the tensor, which may follow the learner's name and a full stop.
        ndim: its number of axes.
    """
    if ndim == 0:
        return None
    words = name.split(".")
    for word, axis in _AXES.items():
        if word in words:
            return axis
    return 0 if _PER_LATENT & set(words) else None


def part_of_dictionary(dictionary: Dictionary, mesh: ProcessMesh) -> Dictionary:
    """The latents of a dictionary that this process holds, as a dictionary of their own.

    Raises:
        ValueRangeError: if its latents cannot be divided so.
    """
    mine = mesh.latents_of(dictionary.width)
    rows = slice(mine.start, mine.stop)
    return Dictionary(
        W_enc=dictionary.W_enc[:, rows],
        b_enc=dictionary.b_enc[rows],
        W_dec=dictionary.W_dec[rows],
        b_dec=dictionary.b_dec,
        activation=part_of(dictionary.activation, mesh, dictionary.width).to(mesh.device),
        reads=dictionary.reads,
        writes=dictionary.writes,
        apply_b_dec_to_input=dictionary.apply_b_dec_to_input,
        frozen_decoder=dictionary.frozen_decoder,
        recipe=dictionary.recipe,
        name=dictionary.name,
        references=dictionary.references,
    )


def whole(
    part: Float[Tensor, "*part"], axis: int | None, mesh: ProcessMesh, width: int
) -> Float[Tensor, "*whole"]:
    """A tensor put together from the parts that the processes of this row hold.

    Args:
        part: this process's.
        axis: the one that runs over latents; None for what every process has whole.
        mesh: the processes.
        width: latents in all.
    """
    if axis is None:
        return part
    return (
        as_dtensor(part.movedim(axis, 0).contiguous(), mesh, width).full_tensor().movedim(0, axis)
    )


def as_dtensor(part: Float[Tensor, "latent ..."], mesh: ProcessMesh, width: int) -> DTensor:
    """This process's latents as a part of the tensor of all, in the same memory."""
    shape = torch.Size([width, *part.shape[1:]])
    return DTensor.from_local(
        part,
        mesh.grid,
        [Replicate(), Shard(0)],
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )
