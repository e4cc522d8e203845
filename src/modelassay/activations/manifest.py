"""What a store of activations says about itself, in `manifest.json`."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from modelassay.core.errors import CorruptFileError, ProvenanceError

FORMAT = "modelassay-harvest"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file of the store."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Where the activations came from, how they lie in files, and which files are there."""

    subject_name: str
    subject_fingerprint: str
    """Hash of the model's weights."""
    widths: dict[str, int]
    """Printed site -> columns of its matrix."""
    dtype: str
    """Type of the stored activations: a key of `forward.DTYPES`."""
    contexts_fingerprint: str
    """Hash of the tokens and of the documents, names and splits included."""
    corpus_source: str
    corpus_fingerprint: str
    """Hash of the documents alone."""
    n_documents: int
    n_contexts: int
    context_tokens: int
    """Length of a context, BOS and padding included."""
    n_tokens: int
    """Rows of each matrix."""
    seed: int
    """Which contexts were taken of a larger corpus."""
    contexts_per_shard: int
    """Shard i holds contexts [i * contexts_per_shard, (i + 1) * contexts_per_shard)."""
    provenance: dict[str, Any]
    contexts: StoredFile
    """Tokens, masks, spans and documents' numbers."""
    documents: StoredFile
    """Names, splits and texts."""
    shards: tuple[StoredFile, ...] = ()
    """Those that are whole, in order of their names."""

    @property
    def n_shards(self) -> int:
        """Shards that a finished store has."""
        return -(-self.n_contexts // self.contexts_per_shard)

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return len(self.shards) == self.n_shards

    def with_shard(self, shard: StoredFile) -> "Manifest":
        """The manifest with one more whole shard."""
        others = [known for known in self.shards if known.name != shard.name]
        return replace(self, shards=tuple(sorted([*others, shard], key=lambda file: file.name)))

    def must_match(self, found: "Manifest") -> None:
        """Refuse a store that was made from something else.

        Raises:
            ProvenanceError: naming what was expected and what the store holds.
        """
        same = {
            "model": ("subject_fingerprint", "subject_name"),
            "corpus": ("contexts_fingerprint", "corpus_source"),
            "sites and widths": ("widths", "widths"),
            "dtype": ("dtype", "dtype"),
        }
        for what, (key, shown) in same.items():
            expected, there = getattr(self, key), getattr(found, key)
            if expected != there:
                raise ProvenanceError(
                    f"The store must hold activations of the same {what}: expected "
                    f"{getattr(self, shown)!r} ({key} {expected}); got {getattr(found, shown)!r} "
                    f"({there}). Choose another directory, or delete this store."
                )

    def to_json(self) -> bytes:
        """The manifest as the bytes of a JSON file."""
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "complete": self.complete}
        return json.dumps(head | asdict(self), indent=1).encode()

    @staticmethod
    def from_json(data: bytes, path: str) -> "Manifest":
        """Read a manifest.

        Raises:
            CorruptFileError: if it is not one, or of a version that this release cannot read.
        """
        try:
            content = json.loads(data)
            kind, version = content.pop("format"), content.pop("format_version")
            content.pop("complete")
            if (kind, version) != (FORMAT, FORMAT_VERSION):
                raise CorruptFileError(
                    f"{path!r} must be of format {FORMAT!r}, version {FORMAT_VERSION}; got "
                    f"{kind!r}, version {version}. Open it with the release that wrote it."
                )
            for key in ("contexts", "documents"):
                content[key] = StoredFile(**content[key])
            content["shards"] = tuple(StoredFile(**shard) for shard in content["shards"])
            return Manifest(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CorruptFileError):
                raise
            raise CorruptFileError(
                f"{path!r} must be the manifest of a harvest; got: {error}. "
                "Restore it from a copy, or harvest anew."
            ) from error
