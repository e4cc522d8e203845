"""Activations on disk or in a bucket: safetensors shards and a manifest, resumable at any moment.

The manifest comes first and lists a shard only once it is whole, so that a kill loses at most the
shard that was being made::

    manifest.json             what it was made from, and which files are whole
    contexts.safetensors      tokens, masks, spans, documents' numbers
    documents.json            names, splits, texts
    shard-00000.safetensors   one tensor a site: rows of the measured tokens
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from modelassay.activations.folder import Folder
from modelassay.activations.forward import DTYPES
from modelassay.activations.manifest import Manifest, StoredFile
from modelassay.activations.matrix import RowMatrix
from modelassay.core.errors import CorruptFileError, OutputExistsError, ProvenanceError
from modelassay.core.progress import Progress

_MANIFEST = "manifest.json"
_CONTEXTS = "contexts.safetensors"
_DOCUMENTS = "documents.json"
_COLUMNS = ("tokens", "mask", "measured", "document", "spans")


def pack_contexts(contexts: TokenizedCorpus) -> dict[StoredFile, bytes]:
    """The files that hold the contexts and their documents, with their content."""
    columns = {name: getattr(contexts, name).contiguous() for name in _COLUMNS}
    texts = {
        "source": contexts.corpus.source,
        "documents": [asdict(document) for document in contexts.corpus.documents],
    }
    # JSON in ASCII: a text may hold lone surrogates, which UTF-8 cannot.
    contents = {_CONTEXTS: save(columns), _DOCUMENTS: json.dumps(texts).encode("ascii")}
    return {
        StoredFile(name=name, bytes=len(data), sha256=sha256(data).hexdigest()): data
        for name, data in contents.items()
    }


class StoreWriter:
    """Writes a store, or goes on with one that was begun from the same things.

    Args:
        wanted: the manifest of the store to be, without shards.
        packed: the contexts' files, from `pack_contexts`.

    Raises:
        ProvenanceError: if there is a store that was made from something else.
        OutputExistsError: if the folder holds other things.
        CorruptFileError: if a shard that is there is truncated or altered.
        StorageError: if the disk is full or the place may not be written.
    """

    def __init__(self, folder: Folder, wanted: Manifest, packed: Mapping[StoredFile, bytes]):
        self._folder = folder
        self.manifest = wanted
        names = folder.names()
        if _MANIFEST in names:
            self.manifest = _read_manifest(folder)
            wanted.must_match(self.manifest)
        elif names:
            raise OutputExistsError(
                f"The folder of a new store must be empty; got {folder.url!r} with "
                f"{sorted(names)[0]!r} in it. Choose another place."
            )
        else:
            folder.write(_MANIFEST, self.manifest.to_json())
        folder.clear_unfinished(_MANIFEST, _CONTEXTS, _DOCUMENTS, "shard-*.safetensors")
        for file, data in packed.items():
            if file.name not in names:
                folder.write(file.name, data)
        with tempfile.TemporaryDirectory() as scratch:
            whole = [shard for shard in self.manifest.shards if shard.name in names]
            for shard in whole:
                folder.fetch(shard, scratch)
        self._whole = {shard.name for shard in whole}

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that are still to be made."""
        return [i for i in range(self.manifest.n_shards) if _shard_name(i) not in self._whole]

    def write_shard(self, number: int, matrices: Mapping[str, Tensor]) -> None:
        """Write one shard, then say in the manifest that it is whole."""
        shard = self._folder.write(_shard_name(number), save(dict(matrices)))
        self.manifest = self.manifest.with_shard(shard)
        self._whole.add(shard.name)
        self._folder.write(_MANIFEST, self.manifest.to_json())


def read_store(
    folder: Folder, progress: Progress, fingerprint: str | None = None
) -> tuple[Manifest, TokenizedCorpus, dict[str, RowMatrix]]:
    """Check a finished store and map its matrices into memory.

    Args:
        fingerprint: the subject that the store must come from; None for any.

    Raises:
        CorruptFileError: if a file is missing, truncated or altered, or the store unfinished.
        ProvenanceError: if it was made from another model.
    """
    if _MANIFEST not in folder.names():
        raise CorruptFileError(
            f"A store must have a {_MANIFEST}; got none in {folder.url!r}. Check the path."
        )
    manifest = _read_manifest(folder)
    if fingerprint not in (None, manifest.subject_fingerprint):
        raise ProvenanceError(
            f"The store at {folder.url!r} must come from the model with fingerprint "
            f"{fingerprint}; got {manifest.subject_fingerprint} ({manifest.subject_name!r}). "
            "Load that model, or harvest this one."
        )
    if not manifest.complete:
        raise CorruptFileError(
            f"The store at {folder.url!r} must be finished; got {len(manifest.shards)} of "
            f"{manifest.n_shards} shards. Run the same harvest with this directory again: it goes "
            "on where it stopped."
        )
    files = (manifest.contexts, manifest.documents, *manifest.shards)
    parts: dict[str, list[Tensor]] = {site: [] for site in manifest.widths}
    # Downloads are removed while they are mapped: the system frees them with the last tensor.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        progress.task("Checking the store", total=sum(f.bytes for f in files), unit="B") as task,
    ):
        contexts_file = folder.fetch(manifest.contexts, scratch)
        documents_file = folder.fetch(manifest.documents, scratch)
        contexts = _unpack_contexts(contexts_file.read_bytes(), documents_file.read_bytes())
        task.advance(manifest.contexts.bytes + manifest.documents.bytes)
        for shard in manifest.shards:
            path = folder.fetch(shard, scratch)
            for site, rows in _map_shard(str(path), manifest).items():
                parts[site].append(rows)
            task.advance(shard.bytes)
    matrices = {site: RowMatrix(parts=tuple(rows), mapped=True) for site, rows in parts.items()}
    for site, matrix in matrices.items():
        if len(matrix) != contexts.n_tokens:
            raise CorruptFileError(
                f"The store at {folder.url!r} must hold a row for each of {contexts.n_tokens} "
                f"tokens; got {len(matrix)} at {site!r}. Harvest anew."
            )
    return manifest, contexts, matrices


def _shard_name(number: int) -> str:
    return f"shard-{number:05d}.safetensors"


def _read_manifest(folder: Folder) -> Manifest:
    return Manifest.from_json(folder.read(_MANIFEST), folder.path(_MANIFEST))


def _unpack_contexts(columns: bytes, texts: bytes) -> TokenizedCorpus:
    # Both files have passed their checksums, so what is in them is what was written.
    content = json.loads(texts)
    documents = tuple(Document(**document) for document in content["documents"])
    corpus = Corpus(source=content["source"], documents=documents)
    return TokenizedCorpus(corpus=corpus, **load(columns))


def _map_shard(path: str, manifest: Manifest) -> dict[str, Tensor]:
    """The shard's tensors, memory-mapped: nothing is read before it is used."""
    try:
        with safe_open(path, framework="pt") as file:
            rows = {site: file.get_tensor(site) for site in manifest.widths}
    except SafetensorError as error:
        raise CorruptFileError(
            f"{path!r} must be a shard of this store; got: {error}. Harvest anew."
        ) from error
    for site, width in manifest.widths.items():
        if rows[site].shape[1:] != (width,) or rows[site].dtype != DTYPES[manifest.dtype]:
            raise CorruptFileError(
                f"{path!r} must hold {manifest.dtype} rows of width {width} at {site!r}; got "
                f"{rows[site].dtype} {tuple(rows[site].shape)}. Harvest anew."
            )
    return rows
