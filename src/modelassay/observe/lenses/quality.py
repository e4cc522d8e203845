"""How well lenses predict on a corpus, depth by depth, with intervals over documents."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import TooFewTokensError, UnknownNameError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.lenses.lens import Lens, depth_names
from modelassay.observe.lenses.measures import MEASURES, Final, measure
from modelassay.observe.lenses.streams import lens_logits, read_streams
from modelassay.subjects.subject import Subject

N_RESAMPLES = 1000  # enough for percentile intervals: Efron & Tibshirani 1993, section 13.3
MIN_DOCUMENTS = 5
"""Below this many documents no interval is given: a bootstrap of so few is too narrow (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """A mean over tokens at every depth, with its 95 % interval over documents."""

    value: Float[Tensor, " depth"]
    low: Float[Tensor, " depth"]
    """NaN for fewer than `MIN_DOCUMENTS` documents."""
    high: Float[Tensor, " depth"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LensQuality:
    """What a lens is worth on a corpus."""

    lens: str
    depths: tuple[str, ...]
    sums: Float[Tensor, "document measure depth"]
    """Of each of `measures.MEASURES` over a document's tokens, float64."""
    tokens: Float[Tensor, " document"]
    """Tokens that were measured: those with a successor in their context."""
    seed: int

    def estimates(self, name: str) -> Estimates:
        """One measure at every depth.

        Raises:
            UnknownNameError: no such measure.
        """
        return _estimates(self._table(name), self.tokens, self.seed)

    def difference(self, other: "LensQuality", name: str) -> Estimates:
        """This lens's measure minus another's, paired by document.

        Raises:
            UnknownNameError: no such measure.
            ValueRangeError: the other was measured on other documents.
        """
        if not torch.equal(self.tokens, other.tokens):
            raise ValueRangeError(
                f"Lenses must be compared on the same documents; got {len(self.tokens)} and "
                f"{len(other.tokens)}, or others. Measure them in one call."
            )
        table = self._table(name) - other._table(name)
        return _estimates(table, self.tokens, self.seed)

    def _table(self, name: str) -> Float[Tensor, "document depth"]:
        if name not in MEASURES:
            raise UnknownNameError("A lens's measure", name, MEASURES)
        return self.sums[:, MEASURES.index(name)]


@torch.no_grad()
def measure_lenses(
    subject: Subject,
    lenses: Sequence[Lens],
    contexts: TokenizedCorpus,
    *,
    count: int = 10,
    batch_contexts: int = 8,
    seed: int = 0,
    progress: Progress = SILENT,
) -> tuple[LensQuality, ...]:
    """Cross-entropy, KL, agreement, rank and entropy of lenses on contexts, in a single pass.

    Args:
        subject: a verified language model.
        lenses: one result each, in this order.
        contexts: of documents that no lens was fitted to.
        count: likeliest tokens whose overlap is the agreement; at most the vocabulary.
        batch_contexts: contexts that the model reads at a time.
        seed: of the bootstrap.
        progress: where to report.

    Raises:
        TooFewTokensError: no token has a successor.
        ProvenanceError: a lens of another model.
        UnsupportedModelError: no verified language model, or its last depth does not reproduce
            its logits.
    """
    for lens in lenses:
        lens.check(subject)
    count = min(count, subject.vocab_size)
    owners, documents = contexts.document.unique(return_inverse=True)
    n_depths = subject.n_layers + 1
    sums = torch.zeros(len(lenses), len(owners), len(MEASURES), n_depths, dtype=torch.float64)
    tokens = torch.zeros(len(owners), dtype=torch.float64)
    with progress.task("Reading", total=len(contexts), unit="contexts") as task:
        for rows in torch.arange(len(contexts)).split(batch_contexts):
            batch = contexts[rows]
            usable = with_successor(batch)
            owner = documents[rows][:, None].expand_as(usable)[usable]
            tokens.index_add_(0, owner, torch.ones(len(owner), dtype=torch.float64))
            found = _measured(subject, lenses, batch, usable, count)
            for number, depth, table in found:
                sums[number, :, :, depth].index_add_(0, owner, table)
            task.advance(len(rows))
    if not tokens.any():
        raise TooFewTokensError(
            "A lens is measured on tokens that have a successor; got none in "
            f"{len(contexts)} contexts. Add text, or lengthen the contexts."
        )
    kept = tokens > 0
    return tuple(
        LensQuality(
            lens=lens.name,
            depths=depth_names(subject.n_layers),
            sums=sums[number][kept],
            tokens=tokens[kept],
            seed=seed,
        )
        for number, lens in enumerate(lenses)
    )


def with_successor(contexts: TokenizedCorpus) -> Bool[Tensor, "context token"]:
    """Measured tokens whose successor stands in the same context."""
    usable = contexts.measured.clone()
    usable[:, :-1] &= contexts.mask[:, 1:]
    usable[:, -1] = False
    return usable


def _measured(
    subject: Subject,
    lenses: Sequence[Lens],
    batch: TokenizedCorpus,
    usable: Bool[Tensor, "context token"],
    count: int,
) -> Iterator[tuple[int, int, Float[Tensor, "token measure"]]]:
    """Number of the lens, depth, and the measures of the usable tokens."""
    mask = None if bool(batch.mask.all()) else batch.mask
    streams = read_streams(subject, batch.tokens, mask)
    targets = batch.tokens.roll(-1, 1)[usable].to(streams.logits.device)
    usable = usable.to(streams.logits.device)
    logits = streams.logits[usable]
    final = Final.of(logits, count)
    resid = tuple(stream[usable] for stream in streams.resid)
    for number, lens in enumerate(lenses):
        for depth, each in enumerate(lens_logits(subject, lens, resid, logits)):
            measured = measure(each, final, targets)
            columns = [getattr(measured, name).double() for name in MEASURES]
            yield number, depth, torch.stack(columns, 1).cpu()


def _estimates(
    table: Float[Tensor, "document depth"], tokens: Float[Tensor, " document"], seed: int
) -> Estimates:
    value = (table.sum(0) / tokens.sum()).float()
    if len(tokens) < MIN_DOCUMENTS:
        missing = torch.full_like(value, torch.nan)
        return Estimates(value=value, low=missing, high=missing)
    weights = _resamples(len(tokens), seed)
    replicates = ((weights @ table) / (weights @ tokens)[:, None]).float()
    ends = replicates.quantile(torch.tensor([0.025, 0.975]), dim=0)
    return Estimates(value=value, low=ends[0], high=ends[1])


def _resamples(n_documents: int, seed: int) -> Float[Tensor, "resample document"]:
    """How often each document is drawn in each resample of all documents with replacement."""
    generator = derived(seed, "lens documents")
    draws: Int[Tensor, "resample document"]
    draws = torch.randint(n_documents, (N_RESAMPLES, n_documents), generator=generator)
    weights = torch.zeros(N_RESAMPLES, n_documents, dtype=torch.float64)
    return weights.scatter_add_(1, draws, torch.ones_like(weights))
