"""What a run must know of the processes that it has: one, or those that `torchrun` started."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Shaped
from torch import Tensor

from modelassay.activations.stream import BatchStream
from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.checkpoints import Checkpoint, write_checkpoint
from modelassay.fitting.distributed.checkpoints import read_part, write_sharded
from modelassay.fitting.distributed.collectives import gathered, least_
from modelassay.fitting.distributed.learner import SharedLearner
from modelassay.fitting.distributed.mesh import ProcessMesh, process_mesh
from modelassay.fitting.distributed.stream import SharedStream
from modelassay.fitting.learner import Learner


class Processes(ABC):
    """The processes of a run. All of them call the same methods in the same order."""

    is_first: bool
    """Whether this process speaks for all: shows progress, writes logs."""

    @abstractmethod
    def stream(self, stream: BatchStream) -> BatchStream:
        """This process's share of the batches."""

    @abstractmethod
    def learner(self, **arguments: Any) -> Learner:
        """A learner of this process's share; arguments are those of `Learner`."""

    @abstractmethod
    def dictionary(self, learner: Learner) -> Dictionary:
        """What a learner and those of the other processes have learned."""

    @abstractmethod
    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process. Waits for all."""

    @abstractmethod
    def any_has_asked(self, flag: bool, *, looking: bool) -> bool:
        """Whether a process has asked for something that can wait until all look up."""

    @abstractmethod
    def least_(self, tensor: Shaped[Tensor, "..."]) -> None:
        """Replace every entry by the least that a process has."""

    @abstractmethod
    def write(self, directory: Path, checkpoint: Checkpoint) -> None:
        """Make a checkpoint of this process's share, and those of the others, current."""

    @abstractmethod
    def read(self, directory: Path, configuration: Mapping[str, Any]) -> Checkpoint:
        """This process's share of the current checkpoint."""


@final
class OneProcess(Processes):
    """This process alone."""

    is_first = True

    def stream(self, stream: BatchStream) -> BatchStream:
        """The batches."""
        return stream

    def learner(self, **arguments: Any) -> Learner:
        """A learner of the whole."""
        return Learner(**arguments)

    def dictionary(self, learner: Learner) -> Dictionary:
        """What the learner has learned."""
        return learner.dictionary

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag

    def any_has_asked(self, flag: bool, *, looking: bool) -> bool:
        """The flag, at any time."""
        del looking
        return flag

    def least_(self, tensor: Shaped[Tensor, "..."]) -> None:
        """Nothing: there is no other."""

    def write(self, directory: Path, checkpoint: Checkpoint) -> None:
        """Write it whole."""
        write_checkpoint(directory, checkpoint)

    def read(self, directory: Path, configuration: Mapping[str, Any]) -> Checkpoint:
        """Read it whole, also if many processes wrote it."""
        return read_part(directory, configuration, None)


@final
@dataclass(frozen=True, eq=False)
class ManyProcesses(Processes):
    """Processes on a mesh."""

    mesh: ProcessMesh

    @property
    def is_first(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether this is the first process."""
        return self.mesh.is_first

    def stream(self, stream: BatchStream) -> SharedStream:
        """This process's rows of every batch."""
        return SharedStream(stream, self.mesh)

    def learner(self, **arguments: Any) -> SharedLearner:
        """A learner of this process's latents."""
        return SharedLearner(mesh=self.mesh, **arguments)

    def dictionary(self, learner: Learner) -> Dictionary:
        """The whole dictionary, on every process."""
        assert isinstance(learner, SharedLearner)
        return learner.whole()

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        here = torch.tensor([flag], dtype=torch.uint8, device=self.mesh.device)
        return bool(gathered(here, self.mesh.everyone).any())

    def any_has_asked(self, flag: bool, *, looking: bool) -> bool:
        """Whether a process has asked, at a moment at which all look up."""
        return looking and self.any(flag)

    def least_(self, tensor: Shaped[Tensor, "..."]) -> None:
        """The least over all processes."""
        least_(tensor, self.mesh.everyone)

    def write(self, directory: Path, checkpoint: Checkpoint) -> None:
        """Write this process's part."""
        write_sharded(directory, checkpoint, self.mesh)

    def read(self, directory: Path, configuration: Mapping[str, Any]) -> Checkpoint:
        """Read this process's part, whoever wrote it."""
        return read_part(directory, configuration, self.mesh)


ONE_PROCESS: Processes = OneProcess()


@contextmanager
def processes_of(
    latent_shards: int | None, device: torch.device
) -> Generator[tuple[Processes, torch.device]]:
    """The processes of a run, and where this one computes.

    Args:
        latent_shards: None for this process alone, else as `process_mesh` takes it.
        device: as it was asked for.
    """
    if latent_shards is None:
        yield ONE_PROCESS, device
        return
    with process_mesh(latent_shards, device) as mesh:
        yield ManyProcesses(mesh), mesh.device
