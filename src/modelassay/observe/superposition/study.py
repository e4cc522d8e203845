"""What an experiment found, on disk and off."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from modelassay.core.errors import CorruptFileError
from modelassay.core.files import prepare_output, read_json, read_tensors, write_json, write_tensors
from modelassay.core.provenance import Provenance

FORMAT_VERSION = 1
Drawing = Literal["polygons", "strips", "dimensionality", "phase", "curves", "neurons"]
Row = dict[str, float | str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """Tensors to draw, numbers to read, and where they came from."""

    name: str
    title: str
    shows: str
    """What to see in the drawing, for readers."""
    drawing: Drawing
    tensors: dict[str, Tensor]
    labels: tuple[str, ...]
    """Of the drawing's panels or lines."""
    rows: tuple[Row, ...]
    """A table: one row a condition."""
    settings: Mapping[str, Any]
    provenance: Provenance

    def save(self, directory: str | Path, *, force: bool = False) -> None:
        """Write `study.safetensors` and `study.json` into a folder.

        Raises:
            OutputExistsError: the folder holds something already and `force` is False.
            StorageError: it cannot be written.
        """
        folder = prepare_output(directory, force=force)
        write_tensors(folder / "study.safetensors", self.tensors)
        write_json(
            folder / "study.json",
            {
                "format_version": FORMAT_VERSION,
                "name": self.name,
                "title": self.title,
                "shows": self.shows,
                "drawing": self.drawing,
                "labels": self.labels,
                "rows": self.rows,
                "settings": self.settings,
                "provenance": self.provenance.as_json(),
            },
        )


def load_study(directory: str | Path) -> Study:
    """The inverse of `Study.save`.

    Raises:
        CorruptFileError: a file is truncated, or of another format.
        FileNotFoundError: there is none.
    """
    folder = Path(directory)
    content, tensors = read_json(folder / "study.json"), read_tensors(folder / "study.safetensors")
    try:
        if content["format_version"] != FORMAT_VERSION or content["drawing"] not in get_args(
            Drawing
        ):
            raise KeyError(f"format {content['format_version']}, {content['drawing']}")
        return Study(
            name=content["name"],
            title=content["title"],
            shows=content["shows"],
            drawing=content["drawing"],
            tensors=tensors,
            labels=tuple(content["labels"]),
            rows=tuple(content["rows"]),
            settings=content["settings"],
            provenance=Provenance.from_json(content["provenance"]),
        )
    except (KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{str(folder / 'study.json')!r} must be a study of format {FORMAT_VERSION}; got "
            f"{error!r}. Make it again with `modelassay superposition run`."
        ) from error
