"""What an optimisation of images gave."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.core.files import prepare_output, write_json, write_tensors
from modelassay.core.provenance import Provenance
from modelassay.observe.visualize.algebra import Target
from modelassay.observe.visualize.settings import Settings

_DEAD = (
    "The target was exactly 0 on the image at every step: the unit is dead, or out of reach of "
    "this start. The image shows nothing about it."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Visualization:
    """Optimised images, with what one needs to judge them.

    The facets of one target stand behind one another: image i belongs to target i // facets.
    """

    images: Float[Tensor, "image 3 height width"]
    """In 0 … 1."""
    objective: Float[Tensor, " image"]
    """The target on the clean final image: no transformation, no regularising between images."""
    trace: Float[Tensor, "image step"]
    """The target at every step, under that step's transformation."""
    transparency: Float[Tensor, "image height width"]
    """Sum over steps of the gradient's magnitude: where the image mattered (Fel et al. 2023)."""
    targets: tuple[Target, ...]
    facets: int
    seed: int
    settings: Settings
    redirected: int
    """Rectifiers whose gradients were redirected; 0 where the model has none that can be seen."""
    provenance: Provenance

    @property
    def dead(self) -> Bool[Tensor, " image"]:
        """Images whose target was exactly 0 at every step."""
        return (self.trace == 0).all(1) & (self.objective == 0)

    @property
    def names(self) -> tuple[str, ...]:
        """The target of each image."""
        return tuple(target.name for target in self.targets for _ in range(self.facets))

    def notes(self, image: int) -> tuple[str, ...]:
        """What must be said beside an image."""
        return (_DEAD,) if bool(self.dead[image]) else ()

    def visible(self, quantile: float = 0.8) -> Float[Tensor, "image 4 height width"]:
        """The images with an alpha channel: opaque where the gradient was large.

        Alpha is the transparency map divided by its quantile, at most 1; the image's values are
        clipped at their 1st and 99th percentile (Fel et al. 2023's display).
        """
        flat = self.images.flatten(1)
        low, high = torch.quantile(flat, torch.tensor([0.01, 0.99]), dim=1)
        span = (high - low).clamp_min(1e-6)[:, None, None, None]
        shown = ((self.images - low[:, None, None, None]) / span).clamp(0, 1)
        cap = self.transparency.flatten(1).quantile(quantile, dim=1).clamp_min(1e-12)
        alpha = (self.transparency / cap[:, None, None]).clamp(0, 1)
        return torch.cat([shown, alpha[:, None]], 1)

    def save(self, directory: str | Path, *, force: bool = False) -> None:
        """Write the tensors and a description into a folder.

        Raises:
            OutputExistsError: if the folder holds something already and `force` is False.
            StorageError: if it cannot be written.
        """
        folder = prepare_output(directory, force=force)
        tensors = {
            name: getattr(self, name) for name in ("images", "objective", "trace", "transparency")
        }
        write_tensors(folder / "images.safetensors", tensors)
        description = {
            "schema_version": 1,
            "names": self.names,
            "objective": self.objective,
            "dead": self.dead,
            "facets": self.facets,
            "seed": self.seed,
            "redirected": self.redirected,
            "settings": self.settings.as_json(),
            "provenance": self.provenance.as_json(),
        }
        write_json(folder / "images.json", description)
