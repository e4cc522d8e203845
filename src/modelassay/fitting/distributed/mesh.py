"""The processes that `torchrun` started, as a grid of tokens by latents."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from modelassay.core.errors import ValueRangeError, WorkerError

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others before it gives up (ours; a checkpoint of 100 GB takes
a few minutes)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessMesh:
    """Processes in rows and columns.

    All processes of a row see the same tokens, and each of them holds other latents. All of a
    column hold the same latents, and each of them sees other tokens.
    """

    grid: DeviceMesh
    """Of two dimensions, `data` and `latent`."""
    device: torch.device
    """Where this process computes."""

    @property
    def tokens(self) -> dist.ProcessGroup:
        """This process's column: the same latents, other tokens."""
        return self.grid.get_group("data")

    @property
    def latents(self) -> dist.ProcessGroup:
        """This process's row: the same tokens, other latents."""
        return self.grid.get_group("latent")

    @property
    def everyone(self) -> dist.ProcessGroup:
        """All processes."""
        group = dist.group.WORLD
        assert group is not None  # a mesh exists only inside `process_mesh`
        return group

    @property
    def token_shards(self) -> int:
        """Into how many parts each batch is divided."""
        return self.grid.size(0)

    @property
    def latent_shards(self) -> int:
        """Into how many parts each dictionary is divided."""
        return self.grid.size(1)

    @property
    def token_shard(self) -> int:
        """Which part of each batch this process sees."""
        return self.grid.get_local_rank("data")

    @property
    def latent_shard(self) -> int:
        """Which part of each dictionary this process holds."""
        return self.grid.get_local_rank("latent")

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that speaks for all."""
        return dist.get_rank() == 0

    def latents_of(self, width: int) -> range:
        """The latents of a dictionary that this process holds; see `divided`."""
        return divided(width, self.latent_shards)[self.latent_shard]


def divided(length: int, parts: int) -> list[range]:
    """Consecutive parts of equal length, the last one shorter: as DTensor's `Shard` divides.

    Raises:
        ValueRangeError: if a part would be empty.
    """
    each = -(-length // parts)
    if each * (parts - 1) >= length:
        raise ValueRangeError(
            f"latent_shards must leave every process some of the {length} latents; got {parts}. "
            "Use fewer shards, or a wider dictionary."
        )
    return [range(start, min(start + each, length)) for start in range(0, length, each)]


def started_processes() -> int:
    """How many processes `torchrun` started, this one included; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this is the first of the processes that `torchrun` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def process_mesh(
    latent_shards: int = 1,
    device: str | torch.device = "cpu",
    timeout: timedelta = TIMEOUT,
) -> Generator[ProcessMesh]:
    """Join the processes that `torchrun` started; leave them at the end.

    A process group that exists already is used and left as it is. Ranks count along the latents
    first, so that the processes which exchange most are neighbours.

    Args:
        latent_shards: into how many parts each dictionary is divided; tokens are divided between
            the remaining factor of the number of processes.
        device: `cuda` stands for the GPU of this process's local rank.
        timeout: how long to wait for another process.

    Raises:
        ValueRangeError: if the number of processes is no multiple of `latent_shards`.
        WorkerError: if this process was not started by `torchrun`, or the others do not answer.
    """
    n_processes = dist.get_world_size() if dist.is_initialized() else started_processes()
    if latent_shards < 1 or n_processes % latent_shards:
        raise ValueRangeError(
            f"latent_shards must divide the number of processes, {n_processes}; got "
            f"{latent_shards}. Start another number with torchrun --nproc-per-node."
        )
    where = _own_device(torch.device(device))
    ours = not dist.is_initialized()
    if ours:
        _join(where, timeout)
    try:
        shape = (n_processes // latent_shards, latent_shards)
        grid = init_device_mesh(where.type, shape, mesh_dim_names=("data", "latent"))
        yield ProcessMesh(grid=grid, device=where)
    finally:
        if ours:
            dist.destroy_process_group()


def _join(device: torch.device, timeout: timedelta) -> None:
    if "RANK" not in os.environ:
        raise WorkerError(
            "Processes that fit together must be started by torchrun; got no RANK in the "
            "environment. Run: torchrun --nproc-per-node 4 -m modelassay fit …"
        )
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, n_processes = next(rendezvous("env://", timeout=timeout))
        # torchrun keeps what processes wrote when they came together before: without a name of
        # its own a second run in the same processes would look for those of the first.
        meeting = store.add(f"modelassay/process {rank}", 1)
        dist.init_process_group(
            backend,
            store=PrefixStore(f"modelassay/meeting {meeting}", store),
            rank=rank,
            world_size=n_processes,
            timeout=timeout,
        )
    except RuntimeError as error:
        raise WorkerError(
            f"All processes must come together at the start; got: {error}. "
            "Look at the first error of the others."
        ) from error


def _own_device(device: torch.device) -> torch.device:
    if device.type != "cuda" or ":" in str(device):
        return device
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(own)
    return own
