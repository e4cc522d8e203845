"""Inference-time optimisation: the directions of any decomposition, with codes found by pursuit."""

from collections.abc import Callable
from typing import final

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, UnknownNameError, ValueRangeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition, Parts
from modelassay.decompositions.pursuit import (
    check_k,
    gradient_pursuit,
    matching_pursuit,
    orthogonal_matching_pursuit,
)

_PURSUITS: dict[str, Callable[..., Codes]] = {
    "omp": orthogonal_matching_pursuit,
    "mp": matching_pursuit,
    "gradient_pursuit": gradient_pursuit,
}
_TITLES: dict[str, str] = {
    "omp": "OMP",
    "mp": "matching pursuit",
    "gradient_pursuit": "gradient pursuit",
}
_REFERENCES: dict[str, str] = {
    "omp": "pati1993",
    "mp": "mallat1993",
    "gradient_pursuit": "blumensath2008",
}
BASE = "base."
"""What the names of the wrapped decomposition's tensors start with, where they are stored."""


@final
class Pursuit(Decomposition):
    """A decomposition's directions and bias, with codes by pursuit instead of its encoder.

    ``z ~ argmin |x - bias - z directions|²`` over codes of at most k latents, greedily: how well
    the directions can reconstruct, whatever their encoder makes of them. It costs k times what the
    encoder does, or more.

    A better reconstruction is not a better feature: on synthetic data of known features, codes by
    matching pursuit explain most and find least (Chanin and Garriga-Alonso 2026).
    """

    references: tuple[str, ...] = (*_REFERENCES.values(), "nanda2024")

    def __init__(
        self,
        base: Decomposition,
        *,
        k: int,
        method: str = "omp",
        non_negative: bool = True,
    ) -> None:
        """Wrap a decomposition; it is kept as it is, not copied.

        Args:
            base: whose directions and bias are used.
            k: the most latents of a token.
            method: "omp", orthogonal matching pursuit: the least error, and the slowest; "mp",
                matching pursuit; "gradient_pursuit".
            non_negative: whether values below zero are forbidden, as a ReLU or TopK encoder does.

        Raises:
            UnknownNameError: if there is no such method.
            ValueRangeError: if k is not between 1 and the number of latents, or, for "omp", of
                dimensions; or if the decomposition reads one site and writes another.
            ShapeError: if its reconstructions are of another width than what it reads.
        """
        if method not in _PURSUITS:
            raise UnknownNameError("A pursuit's method", method, _PURSUITS)
        _check_reconstructs_what_it_reads(base)
        most = min(base.width, base.d_in) if method == "omp" else base.width
        check_k(k, most, base.directions)
        self.base, self.k, self.method, self.non_negative = base, k, method, non_negative
        self.reads, self.writes = base.reads, base.writes
        self.subject_fingerprint, self.provenance = base.subject_fingerprint, base.provenance
        signed = "" if non_negative else ", signed"
        self.name = f"{base.name}, {_TITLES[method]} (k={k}{signed})"
        bounded = ("bruckstein2008",) if method == "omp" and non_negative else ()
        cited = (*base.references, _REFERENCES[method], *bounded, "nanda2024")
        self.references = tuple(dict.fromkeys(cited))

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.base.width

    @property
    def d_in(self) -> int:
        """Width of the activations that it encodes."""
        return self.base.d_in

    @property
    def directions(self) -> Float[Tensor, "latent d_out"]:
        """The base's."""
        return self.base.directions

    @property
    def covectors(self) -> Float[Tensor, "latent d_in"]:
        """What gives a latent its value where it is the only one: ``direction / |direction|²``.

        Where several are active, the value of each depends on which the others are.
        """
        directions = self.directions
        squares = directions.square().sum(1, keepdim=True)
        return directions / squares.masked_fill(squares == 0, 1)

    @property
    def bias(self) -> Float[Tensor, " d_out"]:
        """The base's."""
        return self.base.bias

    def encode_rows(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """Codes of a few checked tokens, by pursuit of what the bias leaves."""
        pursue = _PURSUITS[self.method]
        return pursue(x - self.bias, self.directions, self.k, non_negative=self.non_negative)

    def parts(self) -> Parts:
        """What `save` writes: the base and all that it needs too."""
        base = self.base.parts()
        return Parts(
            kind="pursuit",
            config={
                "k": self.k,
                "method": self.method,
                "non_negative": self.non_negative,
                "base": {
                    "kind": base.kind,
                    "name": self.base.name,
                    "references": list(self.base.references),
                    "config": base.config,
                },
            },
            tensors={BASE + name: tensor for name, tensor in base.tensors.items()},
        )


def _check_reconstructs_what_it_reads(base: Decomposition) -> None:
    if base.d_in != base.d_out:
        raise ShapeError(
            "A pursuit's decomposition must reconstruct what it reads; got one that reads "
            f"{base.d_in} dimensions and writes {base.d_out}. Encode with the transcoder itself."
        )
    if base.reads is not None and base.writes is not None and base.reads != base.writes:
        raise ValueRangeError(
            "A pursuit's decomposition must reconstruct what it reads; got one that reads "
            f"{base.reads} and writes {base.writes}. Encode with the transcoder itself."
        )
