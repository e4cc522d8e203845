"""`Units`: anything that gives one number per token, with one interface.

A value of zero means that the unit is silent there. Latents say so themselves; of directions,
neurons and probes only positive values count as active, unless they are asked for signed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ShapeError, UnsupportedModelError, ValueRangeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.observe.probes.probe import Probe


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """Several units that read one site."""

    names: tuple[str, ...]
    """For readers: "latent 17", "channel 3", "probe: yes"."""
    read: Callable[[Float[Tensor, "token width"]], Codes]
    """Values on some activations: one column a unit, in the order of the names."""
    covectors: Float[Tensor, "unit width"] | None = None
    """What each unit is read with, where it is linear up to its activation function."""
    centre: Float[Tensor, " width"] | None = None
    """What the activations are taken from before that; None is zero."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueRangeError("Units must be at least one; got none. Choose some.")
        if self.covectors is not None and len(self.covectors) != len(self.names):
            raise ShapeError(
                f"Covectors must be one for each of the {len(self.names)} units; got "
                f"{len(self.covectors)}. Pass one row a unit."
            )

    def __len__(self) -> int:
        return len(self.names)

    def __call__(self, x: Float[Tensor, "token width"]) -> Codes:
        """Values of all units on some activations."""
        codes = self.read(x)
        if codes.width != len(self.names) or codes.n_tokens != len(x):
            raise ShapeError(
                f"Units must give {len(self.names)} values for each of {len(x)} tokens; got "
                f"{codes.width} for {codes.n_tokens}. Name every unit, and leave out no token."
            )
        return codes

    def nearness(self, x: Float[Tensor, "token width"]) -> Float[Tensor, "token unit"] | None:
        """Cosine of each activation, less the centre, with what each unit is read with.

        None for units that have no covector.
        """
        if self.covectors is None:
            return None
        centred = x.to(self.covectors) - (0 if self.centre is None else self.centre)
        return functional.normalize(centred, dim=1) @ functional.normalize(self.covectors, dim=1).T


def latents(decomposition: Decomposition, chosen: Sequence[int] | None = None) -> Units:
    """Latents of a dictionary, or of any other decomposition.

    Args:
        decomposition: what encodes.
        chosen: numbers of the latents; None for all.

    Raises:
        ValueRangeError: if there is no such latent.
    """
    numbers = _chosen(chosen, decomposition.width, "latent")
    names = tuple(f"latent {number}" for number in numbers.tolist())
    place = torch.full((decomposition.width,), -1)
    place[numbers] = torch.arange(len(numbers))

    def read(x: Tensor) -> Codes:
        codes = decomposition.encode(x)
        if chosen is None:
            return codes
        moved = place.to(codes.indices.device)[codes.indices]
        kept = moved >= 0
        return Codes(indices=moved.clamp(min=0), values=codes.values * kept, width=len(numbers))

    return Units(
        names=names, read=read, covectors=decomposition.covectors[numbers].detach(),
        centre=decomposition.bias.detach() if decomposition.d_in == decomposition.d_out else None,
    )  # fmt: skip


def coordinates(width: int, chosen: Sequence[int] | None = None, *, signed: bool = False) -> Units:
    """Entries of the activations themselves: neurons, channels.

    Args:
        width: of the site.
        chosen: numbers of the entries; None for all.
        signed: whether negative values count as active too.

    Raises:
        ValueRangeError: if there is no such entry.
    """
    numbers = _chosen(chosen, width, "coordinate")
    names = [f"coordinate {number}" for number in numbers.tolist()]
    return directions(torch.eye(width)[numbers], names=names, signed=signed)


def directions(
    vectors: Float[Tensor, "unit width"],
    *,
    names: Sequence[str] | None = None,
    offsets: Float[Tensor, " unit"] | None = None,
    signed: bool = False,
) -> Units:
    """Projections ``x · v - offset``.

    Args:
        vectors: one row a direction, of any length.
        names: by default their numbers.
        offsets: taken off each projection: with the mean projection, half of the tokens are silent.
        signed: whether negative values count as active too.
    """
    labels = tuple(names or [f"direction {number}" for number in range(len(vectors))])
    off = vectors.new_zeros(len(vectors)) if offsets is None else offsets

    def read(x: Tensor) -> Codes:
        if x.shape[1] != vectors.shape[1]:
            raise ShapeError(
                f"Directions of width {vectors.shape[1]} must read activations of that width; got "
                f"{x.shape[1]}. Read the site that they belong to."
            )
        values = x.to(vectors) @ vectors.T - off
        return Codes.from_dense(values if signed else values.relu())

    return Units(names=labels, read=read, covectors=vectors)


def probe_scores(probe: Probe) -> Units:
    """Log-odds of a linear two-class probe: active where it says the second class.

    Raises:
        UnsupportedModelError: if the probe is not linear, or knows more than two classes.
    """
    covector = probe.head.covector()
    if covector is None:
        raise UnsupportedModelError(
            f"A probe's score must be linear and of two classes; got {probe.method!r} with "
            f"{len(probe.classes)} classes. Fit a logistic or mass-mean probe."
        )
    raw = (covector / probe.scaling.scale).float()

    def read(x: Tensor) -> Codes:
        logs = probe.head.log_probabilities(probe.scaling(x))
        return Codes.from_dense((logs[:, 1:] - logs[:, :1]).float().relu())

    return Units(
        names=(f"probe: {probe.classes[1]}",), read=read, covectors=raw[None],
        centre=probe.scaling.mean.float(),
    )  # fmt: skip


def _chosen(chosen: Sequence[int] | None, width: int, what: str) -> Tensor:
    numbers = torch.arange(width) if chosen is None else torch.tensor(list(chosen)).long()
    if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < width:
        raise ValueRangeError(
            f"A {what} must be from 0 to {width - 1}; got {int(numbers.min())} to "
            f"{int(numbers.max())}. Choose among these."
        )
    if len(numbers.unique()) < len(numbers):
        raise ValueRangeError(
            f"Each {what} must be chosen once; got {len(numbers)} numbers, "
            f"{len(numbers.unique())} of them different. Leave out the repeats."
        )
    return numbers
