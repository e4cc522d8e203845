"""Images by number, so that a set may be larger than the memory and be read twice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import TooFewTokensError
from modelassay.observe.visualize.image_input import check_images
from modelassay.subjects.vision.images import fitted, image_files, read_image


@runtime_checkable
class ImageSet(Protocol):
    """Images of one size, in 0 … 1."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Float[Tensor, "3 h w"]:
        """One image."""
        ...

    def name(self, index: int) -> str:
        """What it is called."""
        ...


@final
@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The JPEG and PNG files of a folder and of those below it, in order of their names.

    The short side of each is resized to fit and the middle cut out, so that odd and unequal sizes
    come out alike; grey files have three equal channels.

    Raises:
        TooFewTokensError: if there are none.
    """

    folder: Path
    size: tuple[int, int]
    files: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", tuple(image_files(self.folder)))

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> Float[Tensor, "3 h w"]:
        """One image, read from its file."""
        return fitted(read_image(self.files[index]), self.size)

    def name(self, index: int) -> str:
        """The file's path within the folder."""
        return str(self.files[index].relative_to(Path(self.folder).expanduser()))


@final
@dataclass(frozen=True, eq=False, slots=True)
class LoadedImages:
    """Images that are in memory already.

    Raises:
        ShapeError, ValueRangeError: if they are not RGB in 0 … 1.
    """

    images: Float[Tensor, "n channels h w"]

    def __post_init__(self) -> None:
        check_images(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[2], self.images.shape[3]

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Float[Tensor, "3 h w"]:
        """One image."""
        return self.images[index]

    def name(self, index: int) -> str:
        """Its number."""
        return f"image {index}"


def batches(
    images: ImageSet, chosen: Sequence[int], batch: int
) -> Iterator[tuple[list[int], Float[Tensor, "n 3 h w"]]]:
    """Some images of a set, a few at a time, with their numbers."""
    for begin in range(0, len(chosen), batch):
        part = list(chosen[begin : begin + batch])
        yield part, torch.stack([images.image(index) for index in part])


def check_enough(images: ImageSet, least: int, what: str) -> None:
    """Refuse a set that is too small.

    Raises:
        TooFewTokensError: if so.
    """
    if len(images) < least:
        raise TooFewTokensError(
            f"{what} must have at least {least} images; got {len(images)}. Add more images."
        )
