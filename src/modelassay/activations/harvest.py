"""Harvest a model's activations: several sites in one pass, into RAM or a resumable store."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import Corpus, Split, TokenizedCorpus
from modelassay.activations.folder import Folder
from modelassay.activations.forward import DTYPES, ForwardPass
from modelassay.activations.joined import JoinedMatrix
from modelassay.activations.manifest import Manifest, StoredFile
from modelassay.activations.matrix import RowMatrix
from modelassay.activations.source import ActivationSource, place_in
from modelassay.activations.statistics import Moments
from modelassay.activations.store import StoreWriter, pack_contexts, read_store
from modelassay.activations.stream import ActivationStream, RowBlocks
from modelassay.core.progress import Progress, Task, default_progress
from modelassay.core.provenance import Provenance
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, eq=False)
class Harvest(ActivationSource):
    """Activations of some sites at every measured token of a tokenized corpus.

    The rows of every matrix follow the contexts, and within a context the tokens. They are in RAM,
    or memory-mapped from a store and read when they are used.
    """

    contexts: TokenizedCorpus
    sites: tuple[Site, ...]
    subject_name: str
    subject_fingerprint: str
    matrices: Mapping[Site, RowMatrix]
    """One row a measured token; heads of a per-head site stand side by side."""
    _moments: dict[Site, Moments] = field(default_factory=dict, init=False, repr=False)

    @property
    def n_tokens(self) -> int:
        """Rows of the activation matrices."""
        return self.contexts.n_tokens

    @property
    def origin(self) -> str:
        """Where the corpus came from."""
        return self.contexts.corpus.source

    @property
    def rows(self) -> Int[Tensor, "token 2"]:
        """Context and position in it of every row."""
        return self.contexts.measured.nonzero()

    def width(self, site: Site | str | None = None) -> int:
        """Columns of a site's activation matrix."""
        return self.matrices[self.find(site)].width

    def activations(self, site: Site | str | None = None) -> Float[Tensor, "token width"]:
        """All rows of a site, in the type in which they are stored.

        A view where they are in RAM, or in a store of one shard; rows that are selected, or lie in
        several shards, are copied. Where they may not fit into RAM use `matrices[site]`, which
        reads the rows that one asks for.
        """
        return self.matrices[self.find(site)].tensor()

    def select(self, split: Split) -> "Harvest":
        """Only the documents on one side of the split; no activation is copied.

        Raises:
            TooFewTokensError: if the corpus has no document there.
        """
        contexts = self.contexts.select(split)
        documents = self.contexts.corpus.documents
        on_side = torch.tensor([document.split == split for document in documents])
        kept = on_side[self.contexts.document[self.rows[:, 0]]].nonzero()[:, 0]
        matrices = {site: matrix.keep(kept) for site, matrix in self.matrices.items()}
        return replace(self, contexts=contexts, matrices=matrices)

    def moments(self, site: Site | str | None = None) -> Moments:
        """Mean, covariance and norm of a site's activations; computed once."""
        site = self.find(site)
        if site not in self._moments:
            self._moments[site] = self.matrices[site].moments()
        return self._moments[site]

    def stream(
        self,
        site: Site | str | None = None,
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
    ) -> ActivationStream:
        """The site's activations in random order: see `ActivationStream`."""
        return ActivationStream(
            RowBlocks.of(self.matrices[self.find(site)]),
            batch_tokens=batch_tokens,
            generator=generator,
            epochs=epochs,
        )

    def joint_stream(
        self,
        sites: Sequence[Site],
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
        refuse_non_finite: bool = True,
    ) -> ActivationStream:
        """Several sites in one random order, side by side: see `ActivationSource`.

        Memory-mapped matrices of more than 4 GiB together are read in blocks, so that the order
        is no longer that of a site alone.
        """
        del refuse_non_finite
        joined = JoinedMatrix(matrices=tuple(self.matrices[self.find(site)] for site in sites))
        return ActivationStream(
            RowBlocks.of(joined), batch_tokens=batch_tokens, generator=generator, epochs=epochs
        )

    def joint_moments(self, sites: Sequence[Site], *, finite_only: bool = False) -> list[Moments]:
        """The moments of several sites."""
        if finite_only:
            return [self.matrices[self.find(site)].moments(finite_only=True) for site in sites]
        return [self.moments(site) for site in sites]

    def non_finite(self, site: Site) -> Int[Tensor, " bad"]:
        """Numbers of the rows with NaN or Inf at a site."""
        return self.matrices[self.find(site)].non_finite()

    def place_of(self, row: int) -> str:
        """Context, token and document of a row."""
        return place_in(self.contexts, row)


def harvest(
    subject: Subject,
    corpus: Corpus | TokenizedCorpus,
    sites: Site | str | Sequence[Site | str],
    *,
    tokens: int | None = None,
    directory: str | Path | None = None,
    batch_contexts: int = 32,
    shard_bytes: int = 2**26,
    dtype: torch.dtype = torch.float32,
    context_tokens: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Harvest:
    """Run a model over a corpus once and keep its activations at some sites.

    The model runs no further than the deepest site. With `directory`, shards are written by a
    thread beside it, and the same call after a kill goes on behind the last whole shard; a store
    that is finished is only opened.

    Args:
        sites: what to read, such as "resid_post.3"; several are read in one pass.
        tokens: harvest random contexts that hold about so many tokens; None for all.
        directory: where to store them: a path or any URL of fsspec; None for RAM.
        batch_contexts: contexts that the model reads at a time.
        shard_bytes: size of a shard: the most that a kill costs; writing takes three times the RAM.
        dtype: type in which they are stored: float32, float16 or bfloat16.
        context_tokens: length of a context; by default 256 or the most that the model reads.
        seed: which contexts are taken.

    Raises:
        NonFiniteError: if an activation is NaN or infinite.
        ProvenanceError: if `directory` holds a store of another model, corpus, site or dtype.
        OutputExistsError: if it holds something else.
        CorruptFileError: if a shard in it is truncated or altered.
        StorageError: if the disk is full or the place may not be written.
    """
    progress = progress or default_progress()
    run = ForwardPass.plan(
        subject,
        corpus,
        sites,
        tokens=tokens,
        context_tokens=context_tokens,
        batch_contexts=batch_contexts,
        dtype=dtype,
        seed=seed,
    )
    if directory is not None:
        packed = pack_contexts(run.contexts)
        manifest = _manifest(run, tuple(packed), seed, shard_bytes)
        _write_shards(run, StoreWriter(Folder(str(directory)), manifest, packed), progress)
        return open_harvest(directory, subject, progress=progress)
    with progress.task("Harvesting", total=run.contexts.n_tokens, unit="tokens") as task:
        matrices = _matrices(run, torch.arange(len(run.contexts)), task)
    return Harvest(
        contexts=run.contexts,
        sites=run.sites,
        subject_name=subject.name,
        subject_fingerprint=subject.fingerprint(),
        matrices={s: RowMatrix(parts=(rows,), mapped=False) for s, rows in matrices.items()},
    )


def open_harvest(
    directory: str | Path, subject: Subject | None = None, *, progress: Progress | None = None
) -> Harvest:
    """Open a store: every checksum is checked, and its matrices are memory-mapped.

    A store that is not on a local disk is downloaded to a temporary folder.

    Args:
        subject: the model that it must come from; None to take any.

    Raises:
        CorruptFileError: if a file is missing, truncated or altered, or the store unfinished.
        ProvenanceError: if it comes from another model.
    """
    fingerprint = subject.fingerprint() if subject is not None else None
    manifest, contexts, matrices = read_store(
        Folder(str(directory)), progress or default_progress(), fingerprint
    )
    sites = {name: Site.parse(name) for name in manifest.widths}
    return Harvest(
        contexts=contexts,
        sites=tuple(sites.values()),
        subject_name=manifest.subject_name,
        subject_fingerprint=manifest.subject_fingerprint,
        matrices={site: matrices[name] for name, site in sites.items()},
    )


def _matrices(run: ForwardPass, numbers: Int[Tensor, " picked"], task: Task) -> dict[Site, Tensor]:
    """The activation matrices of some contexts, in RAM."""
    n_tokens = int(run.contexts.measured[numbers].sum())
    filled = {
        site: torch.empty(n_tokens, width, dtype=run.dtype) for site, width in run.widths.items()
    }
    start = 0
    for rows in run.rows(numbers):
        stop = start + len(rows[run.sites[0]])
        for site, values in rows.items():
            filled[site][start:stop] = values
        task.advance(stop - start)
        start = stop
    return filled


def _manifest(
    run: ForwardPass, files: tuple[StoredFile, ...], seed: int, shard_bytes: int
) -> Manifest:
    """What the store will say about itself, before it has any shard."""
    contexts = run.contexts
    context_tokens = contexts.tokens.shape[1]
    context_bytes = context_tokens * sum(run.widths.values()) * run.dtype.itemsize
    batches = max(1, shard_bytes // (context_bytes * run.batch_contexts))
    contexts_file, documents_file = files
    return Manifest(
        subject_name=run.subject.name,
        subject_fingerprint=run.subject.fingerprint(),
        widths={str(site): width for site, width in run.widths.items()},
        dtype=next(name for name, dtype in DTYPES.items() if dtype == run.dtype),
        contexts_fingerprint=contexts.fingerprint(),
        corpus_source=contexts.corpus.source,
        corpus_fingerprint=contexts.corpus.fingerprint(),
        n_documents=len(contexts.corpus.documents),
        n_contexts=len(contexts),
        context_tokens=context_tokens,
        n_tokens=contexts.n_tokens,
        seed=seed,
        contexts_per_shard=batches * run.batch_contexts,
        provenance=Provenance.collect(seed=seed, device=str(run.subject.device)).as_json(),
        contexts=contexts_file,
        documents=documents_file,
    )


def _write_shards(run: ForwardPass, writer: StoreWriter, progress: Progress) -> None:
    """Make the shards that are missing; one is written while the next is computed."""
    shards = torch.arange(len(run.contexts)).split(writer.manifest.contexts_per_shard)
    missing = writer.missing
    total = sum(int(run.contexts.measured[shards[number]].sum()) for number in missing)
    writing: Future[None] | None = None
    with (
        progress.task("Harvesting", total=total, unit="tokens") as task,
        ThreadPoolExecutor(max_workers=1) as pool,
    ):
        for number in missing:
            filled = _matrices(run, shards[number], task)
            if writing is not None:
                writing.result()
            named = {str(site): matrix for site, matrix in filled.items()}
            writing = pool.submit(writer.write_shard, number, named)
        if writing is not None:
            writing.result()
