"""What scores need of a decomposition, computed once for all arms."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from jaxtyping import Float
from torch import Tensor

from modelassay.testbeds.arm import Arm
from modelassay.testbeds.truth import Truth

OnInputs = tuple[Truth, int]
"""A truth, and which inputs it is evaluated on."""


def on_inputs(arm: Arm, truth: Truth) -> OnInputs:
    """Where truths have the same values: arms may share a truth, and the inputs."""
    return truth, id(arm.interventional)


@dataclass(frozen=True, kw_only=True, eq=False)
class Latents:
    """Values and directions of latents; arms share their activations, and so these."""

    values: Float[Tensor, "interventional latent"]
    """On the interventional inputs."""
    directions: Float[Tensor, "latent d"] | None = None
    """What a unit of each latent writes; needed for S_graph."""
    covectors: Float[Tensor, "latent d"] | None = None
    """What each latent is read with; needed where directions are matched."""
    data_values: Callable[[], Float[Tensor, "input latent"]] | None = None
    """On the data; needed for S_graph."""
    matches: dict[OnInputs, float] = field(default_factory=dict)
    """Those found so far: arms may share a truth."""

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.values.shape[1]

    @cached_property
    def l0(self) -> int:
        """Mean number of latents that are active on an input, at least 1."""
        return max(1, round(float((self.values != 0).sum(1).float().mean())))
