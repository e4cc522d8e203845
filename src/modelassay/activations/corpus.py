"""Documents, tokens, and the document-level split that everything downstream respects."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from modelassay.core.errors import TooFewTokensError, UnknownNameError, ValueRangeError
from modelassay.core.files import translate_os_errors
from modelassay.core.progress import SILENT, Progress

Split = Literal["fit", "heldout"]

_SUFFIXES = {".txt", ".md", ".py"}
_RUN_CHARACTERS = 4000  # about a thousand tokens: some contexts a document (ours)


@runtime_checkable
class Tokenizer(Protocol):
    """What we need of a Hugging Face fast tokenizer."""

    bos_token_id: int | None

    def __call__(self, text: str, **options: object) -> object:
        """Token ids and character offsets."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """One text and the side of the split that it lies on."""

    name: str
    """Stable name within its corpus: a relative path or a running number."""
    text: str
    split: Split


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Documents with a document-level split.

    The split belongs to the documents, not to tokens: nothing fitted on one document is ever
    measured on another part of the same document.
    """

    source: str
    """Where the texts came from, in words: printed in every provenance line."""
    documents: tuple[Document, ...]

    def __post_init__(self) -> None:
        if not any(document.text for document in self.documents):
            raise TooFewTokensError(
                f"A corpus must hold at least one non-empty document; got {len(self.documents)} "
                f"documents from {self.source!r}, all empty. Check the path and the encoding."
            )

    def select(self, split: Split) -> "Corpus":
        """Only the documents on one side of the split.

        Raises:
            TooFewTokensError: if there are none.
        """
        self.require(split)
        return replace(self, documents=tuple(d for d in self.documents if d.split == split))

    def require(self, split: Split) -> None:
        """Refuse a corpus without documents on one side of the split."""
        if not any(document.split == split for document in self.documents):
            raise TooFewTokensError(
                f"The corpus must hold documents on the {split!r} side of the split; got none "
                f"among {len(self.documents)} from {self.source!r}. Add documents, or change "
                "heldout_share."
            )

    def fingerprint(self) -> str:
        """Hash of names, splits and texts: equal corpora have equal fingerprints."""
        digest = hashlib.sha256()
        for document in self.documents:
            for part in (document.name, document.split, document.text):
                digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()[:16]


def split_of(name: str, heldout_share: float = 0.1) -> Split:
    """The side of the split for a document, from its name alone.

    A hash decides, so that adding or removing other documents moves nothing across the split.
    """
    if not 0 < heldout_share < 1:
        raise ValueRangeError(
            f"heldout_share must be between 0 and 1, both excluded; got {heldout_share}. "
            "Use 0.1 unless you have few documents."
        )
    bucket = (
        int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        / 2**64
    )
    return "heldout" if bucket < heldout_share else "fit"


def corpus_from_texts(
    texts: Iterable[str],
    *,
    source: str,
    names: Sequence[str] | None = None,
    heldout_share: float = 0.1,
) -> Corpus:
    """A corpus of the given texts, split by a hash of each text's name (its number by default)."""
    texts = list(texts)
    labels = list(names) if names is not None else [f"{i:06d}" for i in range(len(texts))]
    documents = tuple(
        Document(name=name, text=text, split=split_of(name, heldout_share))
        for name, text in zip(labels, texts, strict=True)
    )
    return Corpus(source=source, documents=documents)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedCorpus:
    """A corpus cut into contexts of equal length, with the way back to the text.

    Padding stands at the end of a context and is False in `mask`. A context never crosses a
    document's border.
    """

    corpus: Corpus
    tokens: Int[Tensor, "context token"]
    mask: Bool[Tensor, "context token"]
    """True at real tokens (the beginning-of-sequence token counts as real)."""
    measured: Bool[Tensor, "context token"]
    """True at the tokens that are harvested and measured: real, and not the BOS token."""
    document: Int[Tensor, " context"]
    """Index into `corpus.documents`."""
    spans: Int[Tensor, "context token 2"]
    """First and one-past-last character in the document's text; (-1, -1) where there is no text."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_tokens(self) -> int:
        """Measured tokens: neither padding nor BOS."""
        return int(self.measured.sum())

    def select(self, split: Split) -> "TokenizedCorpus":
        """Only the contexts whose document lies on one side of the split.

        Raises:
            TooFewTokensError: if the corpus has no document there.
        """
        self.corpus.require(split)
        on_side = torch.tensor([d.split == split for d in self.corpus.documents])
        return self[on_side[self.document]]

    def __getitem__(self, index: slice | Tensor) -> "TokenizedCorpus":
        return replace(
            self, tokens=self.tokens[index], mask=self.mask[index],
            measured=self.measured[index], document=self.document[index], spans=self.spans[index],
        )  # fmt: skip

    def take(self, n_tokens: int, generator: torch.Generator) -> "TokenizedCorpus":
        """Random contexts that hold at least `n_tokens` measured tokens together.

        All contexts, if they hold fewer. They stay in order.
        """
        order = torch.randperm(len(self), generator=generator)
        counts = self.measured.sum(1)[order].cumsum(0)
        enough = int((counts < n_tokens).sum()) + 1
        return self[order[:enough].sort().values]

    def fingerprint(self) -> str:
        """Hash of the tokens, both masks and the documents they came from."""
        digest = hashlib.sha256(self.corpus.fingerprint().encode())
        for tensor in (self.tokens, self.mask, self.measured, self.document):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def tokenize(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    context_tokens: int,
    prepend_bos: bool | None = None,
    min_tokens: int = 8,
    progress: Progress = SILENT,
) -> TokenizedCorpus:
    """Cut every document into contexts of `context_tokens` tokens.

    Args:
        tokenizer: a Hugging Face *fast* tokenizer (character offsets are needed).
        context_tokens: length of a context, the BOS token included.
        prepend_bos: begin every context with the BOS token; by default, if the tokenizer has one.
        min_tokens: a document's last context is dropped when it holds fewer real tokens.
        progress: where to report.

    Raises:
        TooFewTokensError: if no context remains.
    """
    if context_tokens < max(min_tokens, 2):
        raise ValueRangeError(
            f"context_tokens must be at least min_tokens={min_tokens} and 2; "
            f"got {context_tokens}. Lengthen the contexts."
        )
    if getattr(tokenizer, "is_fast", True) is False:
        raise ValueRangeError(
            "tokenizer must know its tokens' character offsets, as fast tokenizers do; got "
            f"{type(tokenizer).__name__}. Load it with use_fast=True, or pass token ids."
        )
    bos = tokenizer.bos_token_id
    with_bos = (bos is not None) if prepend_bos is None else prepend_bos
    if with_bos and bos is None:
        raise ValueRangeError(
            "prepend_bos needs a tokenizer with a BOS token; got one without. "
            "Pass prepend_bos=False."
        )
    head = [bos] if with_bos else []
    head_spans = torch.full((len(head), 2), -1)
    body = context_tokens - len(head)
    rows: list[list[int]] = []
    spans: list[Tensor] = []
    owners: list[int] = []
    with progress.task("Tokenizing", total=len(corpus.documents), unit="documents") as task:
        for index, document in enumerate(corpus.documents):
            # Text is text: a "<s>" written in a document must not become the BOS token.
            encoded = tokenizer(
                document.text,
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
                verbose=False,
            )
            ids, offsets = encoded["input_ids"], torch.tensor(encoded["offset_mapping"])  # type: ignore[index]
            for start in range(0, len(ids), body):
                piece = ids[start : start + body]
                if len(piece) + len(head) < min_tokens:
                    continue
                rows.append(head + piece)
                spans += [head_spans, offsets[start : start + body]]
                owners.append(index)
            task.advance(1)
    if not rows:
        raise TooFewTokensError(
            f"Tokenizing must leave at least one context of {min_tokens} tokens; got none from "
            f"{len(corpus.documents)} documents. Add text or lower min_tokens."
        )
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(context_tokens)[None, :] < lengths[:, None]
    # Padding repeats token 0: it is masked out everywhere, so its identity never matters.
    tokens = torch.zeros(len(rows), context_tokens, dtype=torch.int64)
    tokens[mask] = torch.tensor([t for row in rows for t in row])
    span_table = torch.full((len(rows), context_tokens, 2), -1, dtype=torch.int64)
    span_table[mask] = torch.cat(spans)
    measured = mask.clone()
    measured[:, : len(head)] = False
    return TokenizedCorpus(
        corpus=corpus, tokens=tokens, mask=mask, measured=measured,
        document=torch.tensor(owners), spans=span_table,
    )  # fmt: skip


def read_texts(
    path: str | Path, *, separator: str = "<|endoftext|>", heldout_share: float = 0.1
) -> Corpus:
    """A corpus from a file or a folder of text files.

    A folder gives one document a file (`.txt`, `.md`, `.py`). A single file is cut at lines that
    hold only `separator`; if there is none, into runs of paragraphs of about 4,000 characters, so
    that a held-out part exists at all.

    Raises:
        UnknownNameError: if there is nothing at `path`; near misses are suggested.
        StorageError: if it may not be read.
        TooFewTokensError: if there is no text in it.
    """
    path = Path(path)
    if not path.exists():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        raise UnknownNameError("A path to texts", str(path), sorted(map(str, beside)))
    source = path.resolve().name
    with translate_os_errors(path):
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())
            texts = [file.read_text("utf-8", errors="replace") for file in files]
            names = [file.relative_to(path).as_posix() for file in files]
            return corpus_from_texts(texts, source=source, names=names, heldout_share=heldout_share)
        text = path.read_text("utf-8", errors="replace")
    pieces = re.split(rf"(?m)^{re.escape(separator)}[ \t]*$", text)
    if len(pieces) == 1:
        pieces = _runs_of_paragraphs(text, _RUN_CHARACTERS)
    stories = [piece.strip("\n") for piece in pieces if piece.strip()]
    return corpus_from_texts(stories, source=source, heldout_share=heldout_share)


def _runs_of_paragraphs(text: str, characters: int) -> list[str]:
    """Pieces of at least `characters`, cut at a blank line, or at any line once twice as long."""
    runs, start, end = [], 0, 0
    for line in text.splitlines(keepends=True):
        end += len(line)
        length = end - start
        if length >= 2 * characters or (length >= characters and not line.strip()):
            runs.append(text[start:end])
            start = end
    return [*runs, text[start:]] if start < len(text) else runs
