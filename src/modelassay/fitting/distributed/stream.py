"""This process's share of the batches that one process would see."""

from jaxtyping import Float
from torch import Tensor

from modelassay.activations.stream import BatchStream
from modelassay.core.errors import ValueRangeError
from modelassay.fitting.distributed.mesh import ProcessMesh


class SharedStream:
    """Consecutive rows of every batch of a stream.

    All processes draw the same order, so their shares are disjoint and make up the batches of one
    process. Activations on disk are read through the page cache, which processes of one machine
    share; activations that a model makes while they are used are made by every process.

    Args:
        stream: of whole batches; the same on all processes.
        mesh: the processes.

    Raises:
        ValueRangeError: if the batches cannot be divided equally.
    """

    def __init__(self, stream: BatchStream, mesh: ProcessMesh) -> None:
        if stream.batch_tokens % mesh.token_shards:
            raise ValueRangeError(
                f"batch_tokens must be a multiple of the {mesh.token_shards} processes that divide "
                f"a batch; got {stream.batch_tokens}. Change it, or raise latent_shards."
            )
        self._stream = stream
        share = stream.batch_tokens // mesh.token_shards
        self._rows = slice(mesh.token_shard * share, (mesh.token_shard + 1) * share)
        self.batch_tokens = stream.batch_tokens
        """Rows of a batch, those of the other processes counted."""

    def __next__(self) -> Float[Tensor, "token width"]:
        """This process's rows of the next batch."""
        return next(self._stream)[self._rows]

    def state_dict(self) -> dict[str, int]:
        """Where the stream stands."""
        return self._stream.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._stream.load_state_dict(state)
