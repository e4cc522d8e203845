"""What pursuits that know the activations only by their pre-activations have in common."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.sparsifier import Sparsifier


class Rounds(Sparsifier):
    """A pursuit of at most k rounds, which also ends once little is left.

    Latents are chosen by what the latents chosen before them leave of the pre-activations, so that
    these do not suffice: `select_with` is given the weights too.
    """

    compares_latents = True
    varies_k = True
    values_are_pre_activations = False

    def __init__(self, k: int, tolerance: float = 0.0) -> None:
        """Make a sparsifier.

        Args:
            k: rounds, and so the most active latents of a token.
            tolerance: rounds end once the largest of what is left of the pre-activations is at
                most this share of the first round's.
        """
        super().__init__()
        self.k, self.tolerance = k, tolerance

    def settings(self) -> dict[str, Any]:
        """k and the tolerance."""
        return {"k": self.k, "tolerance": self.tolerance}

    @classmethod
    def read(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Rounds":
        """See `Sparsifier.read`."""
        del tensors
        return cls(settings["k"], settings["tolerance"])

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Refuse: pre-activations alone do not say how latents overlap.

        Raises:
            ValueRangeError: always.
        """
        raise ValueRangeError(
            f"{self.label} must know how latents overlap; got pre-activations alone, "
            f"{list(pre.shape)}. Use select_with."
        )
