"""One process of a mesh whose others do not exist: for whatever asks none of them."""

import torch
from torch.distributed.device_mesh import DeviceMesh

from modelassay.fitting.distributed.mesh import ProcessMesh


class OnePart(ProcessMesh):
    """The process of some latents, or of some tokens."""

    def __init__(self, latents: tuple[int, int] = (0, 1), tokens: tuple[int, int] = (0, 1)) -> None:
        # Around the frozen dataclass, whose fields the properties below take the place of.
        object.__setattr__(self, "_latents", latents)
        object.__setattr__(self, "_tokens", tokens)

    _latents: tuple[int, int]
    _tokens: tuple[int, int]

    @property
    def grid(self) -> DeviceMesh:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise AssertionError("There are no other processes to speak to.")

    @property
    def device(self) -> torch.device:  # pyright: ignore[reportIncompatibleVariableOverride]
        return torch.device("cpu")

    @property
    def latent_shard(self) -> int:
        return self._latents[0]

    @property
    def latent_shards(self) -> int:
        return self._latents[1]

    @property
    def token_shard(self) -> int:
        return self._tokens[0]

    @property
    def token_shards(self) -> int:
        return self._tokens[1]
