"""Which files make a dictionary in each format: to fetch no others, and to list what there is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

from modelassay.core.errors import CorruptFileError


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderLayout:
    """A format in which every dictionary has a folder."""

    sets: tuple[tuple[str, ...], ...]
    """Files that belong together; one of the sets makes a dictionary."""
    extra: tuple[str, ...] = ()
    """Files that are fetched with them where they are."""
    layers: tuple[str, ...] = ()
    """Files of a cross-layer transcoder, as globs."""

    def wanted(self, path: str) -> list[str]:
        """What to fetch for a dictionary's folder."""
        names = dict.fromkeys([*(name for files in self.sets for name in files), *self.extra])
        return [str(PurePosixPath(path, name)) for name in names]

    def wanted_layers(self, path: str) -> list[str]:
        """What to fetch for a cross-layer transcoder's folder."""
        configs = [files[0] for files in self.sets if files[0].startswith("config.")]
        names = [*self.layers, *configs] if self.layers else [n for f in self.sets for n in f]
        return [str(PurePosixPath(path, name)) for name in names]

    def among(self, files: Iterable[str], kind: str) -> list[str]:
        """The folders of all dictionaries among some files.

        Raises:
            CorruptFileError: if a folder has some files of a set and lacks another.
        """
        known = set(files)
        found: list[str] = []
        for folder in sorted(self._candidates(known)):
            paths = [[str(PurePosixPath(folder, n)) for n in names] for names in self.sets]
            if any(known.issuperset(needed) for needed in paths):
                found.append(folder)
                continue
            begun = (needed for needed in paths if not known.isdisjoint(needed))
            lost = min(([p for p in needed if p not in known] for needed in begun), key=len)
            raise lost_file(lost[0], kind)
        return found

    def _candidates(self, known: set[str]) -> set[str]:
        """Folders with a file of a set, but for a config of the whole or of a cross-layer one."""
        ends = {f"/{name}" for names in self.sets for name in names}
        folders = {f[: -len(end)] for f in known for end in ends if f"/{f}".endswith(end)}
        folders = {folder.strip("/") for folder in folders}
        own = {n for names in self.sets for n in names if not n.startswith("config.")}
        if not own & known:
            folders.discard("")
        for layers in self.layers:
            folders -= {str(PurePosixPath(f).parent) for f in known if fnmatch(f, f"*{layers}")}
        return folders


@dataclass(frozen=True, kw_only=True, slots=True)
class FileLayout:
    """A format in which every dictionary is a file."""

    name: re.Pattern[str]
    """Of the file; a group is the layer's number."""
    beside: tuple[str, ...] = ()
    """Files of its folder that are fetched with it."""
    from_zero: bool = False
    """Whether layers count from 0, so that a missing first one is noticed."""
    layers: tuple[str, ...] = ()
    """Files of a cross-layer transcoder, as globs."""

    def wanted(self, path: str) -> list[str]:
        """What to fetch for a file."""
        return [path, *(str(PurePosixPath(path).parent / name) for name in self.beside)]

    def wanted_layers(self, path: str) -> list[str]:
        """What to fetch for a cross-layer transcoder's folder."""
        return [str(PurePosixPath(path, name)) for name in (*self.layers, *self.beside)]

    def among(self, files: Iterable[str], kind: str) -> list[str]:
        """All dictionaries among some files.

        Raises:
            CorruptFileError: if layers are numbered and one is missing.
        """
        folders: dict[str, dict[int, str]] = {}
        found: list[str] = []
        for file in sorted(files):
            match = self.name.fullmatch(PurePosixPath(file).name)
            if match is None:
                continue
            found.append(file)
            if match.groups():
                folders.setdefault(str(PurePosixPath(file).parent), {})[int(match[1])] = file
        for numbers in folders.values():
            first = 0 if self.from_zero else min(numbers)
            for layer in range(first, max(numbers)):
                if layer not in numbers:
                    other = PurePosixPath(numbers[max(numbers)])
                    name = re.sub(r"\d+", str(layer), other.name, count=1)
                    raise lost_file(str(other.with_name(name)), kind)
        if not folders:
            return found
        order = {file: layer for numbers in folders.values() for layer, file in numbers.items()}
        return sorted(found, key=lambda file: (str(PurePosixPath(file).parent), order[file]))


LAYOUTS: dict[str, FolderLayout | FileLayout] = {
    "modelassay": FolderLayout(sets=(("config.json", "weights.safetensors"),)),
    "saelens": FolderLayout(
        sets=(("cfg.json", "sae_weights.safetensors"),), extra=("activation_scaler.json",)
    ),
    "dictionary_learning": FolderLayout(sets=(("config.json", "ae.pt"),)),
    "sparsify": FolderLayout(sets=(("cfg.json", "sae.safetensors"),)),
    "gemma_scope": FolderLayout(
        sets=(("params.npz",), ("config.json", "params.safetensors")),
        layers=("params_layer_*.safetensors",),
    ),
    "llama_scope": FolderLayout(
        sets=(
            ("hyperparams.json", "checkpoints/final.safetensors"),
            ("config.json", "sae_weights.safetensors"),
        )
    ),
    "openai": FileLayout(name=re.compile(r".+\.pt")),
    "qwen_scope": FileLayout(name=re.compile(r"layer(\d+)\.sae\.pt")),
    "goodfire": FileLayout(name=re.compile(r".+\.pth?")),
    "circuit_tracer": FileLayout(
        name=re.compile(r"layer_(\d+)\.safetensors"),
        beside=("config.yaml",),
        from_zero=True,
        layers=("W_enc_*.safetensors", "W_dec_*.safetensors"),
    ),
}
"""Format -> its files."""


def lost_file(path: str, kind: str) -> CorruptFileError:
    """The error for a file that is missing among many."""
    return CorruptFileError(
        f"All files of these {kind} dictionaries must be there; got none at {path!r}. "
        "Fetch it, or name the dictionaries one by one."
    )
