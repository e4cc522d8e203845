"""Terms that couple images: facets that should differ, steps that should be alike."""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modelassay.observe.visualize.algebra import Seen, Shapes, Target

FACET_WEIGHT = 100.0  # lucid's notebook on diversity of a neuron
_REACH = 4  # lucid: images up to so many steps apart are drawn together


@final
@dataclass(frozen=True, slots=True)
class FacetSimilarity(Target):
    """How alike the facets of one target are in style; subtract it to see several facets.

    With G_b the Gram matrix of image b's channels at the layer, of unit length,
    ``value_b = sum over c != b of <G_b, G_c> / B``. 0 for a single facet.
    """

    layer: str

    @property
    def layers(self) -> frozenset[str]:
        """The one layer."""
        return frozenset({self.layer})

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """The likeness of each facet to the others."""
        found = seen.maps[self.layer].flatten(2)
        gram = torch.einsum("nci,ndi->ncd", found, found)
        images = len(seen.images)
        gram = gram.view(images, -1, *gram.shape[1:]).mean(1).flatten(1)
        unit = F.normalize(gram, dim=1)
        alike = unit @ unit.T
        return (alike.sum(1) - alike.diagonal()) / images

    def check(self, shapes: Shapes) -> None:
        """Every layer will do."""

    @property
    def name(self) -> str:
        """Short and for readers."""
        return f"similarity of facets at {self.layer}"


@final
@dataclass(frozen=True, slots=True)
class Alignment(Target):
    """How near neighbours in a row of images are at a layer; for interpolations.

    ``-sum over d = 1 … 4 of mean (a_i - a_{i+d})² / 2^d``, shared between the two images of a pair.
    """

    layer: str

    @property
    def layers(self) -> frozenset[str]:
        """The one layer."""
        return frozenset({self.layer})

    def values(self, seen: Seen) -> Float[Tensor, " image"]:
        """Minus the distance to the neighbours."""
        found = seen.maps[self.layer]
        images = len(seen.images)
        rows = found.reshape(images, -1)
        total = rows.new_zeros(images)
        for distance in range(1, min(_REACH, images - 1) + 1):
            apart = (rows[distance:] - rows[:-distance]).square().mean(1) / 2**distance
            # The mean over pairs, as lucid has it, split evenly between a pair's two images.
            share = apart / (2 * len(apart))
            total = total - F.pad(share, (distance, 0)) - F.pad(share, (0, distance))
        return total

    def check(self, shapes: Shapes) -> None:
        """Every layer will do."""

    @property
    def name(self) -> str:
        """Short and for readers."""
        return f"alignment at {self.layer}"
