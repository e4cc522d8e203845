"""Dead latents where latents and tokens are divided between processes."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.fitting.dead_latents import DeadLatents
from modelassay.fitting.distributed.collectives import gathered, least_
from modelassay.fitting.distributed.mesh import ProcessMesh


class SharedDeadLatents(DeadLatents):
    """The silence of this process's latents, in tokens of all processes.

    Each process counts every token of a batch, and sees its own latents fire on its own tokens.
    So a latent's silence is the least that a process of its column counts; they compare only when
    somebody asks, not in every step.
    """

    def __init__(
        self, width: int, window: int, mesh: ProcessMesh, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(width, window, device)
        self._mesh = mesh
        self.most_dead = 0
        """The largest number of dead latents that a process had at the last census."""

    def record(
        self,
        values: Float[Tensor, "*selected"],
        indices: Int[Tensor, "*selected"] | None,
        tokens: int,
    ) -> None:
        """Count one batch, of which this process saw `tokens`."""
        super().record(values, indices, tokens * self._mesh.token_shards)

    def agree(self) -> None:
        """Take over what the other processes of the column saw fire."""
        least_(self.silence, self._mesh.tokens)

    def dead(self) -> Bool[Tensor, " latent"]:
        """Whether each latent is dead, for all processes of the column."""
        self.agree()
        return super().dead()

    def census(self) -> Int[Tensor, " dead"]:
        """Indices of this process's dead latents."""
        dead = super().census()
        self.count(dead)
        return dead

    def count(self, dead: Int[Tensor, " dead"]) -> None:
        """Agree on how many latents are dead at most on a process of the row."""
        here = torch.tensor([len(dead)], device=dead.device)
        self.most_dead = int(gathered(here, self._mesh.latents).max())
