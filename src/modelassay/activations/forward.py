"""Run a model on contexts and keep the activations of the measured tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import Corpus, TokenizedCorpus, tokenize
from modelassay.core.errors import (
    NonFiniteError,
    ShapeError,
    TooFewTokensError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.core.randomness import derived
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types in which activations are kept."""

_DEFAULT_CONTEXT_TOKENS = 256  # ours: enough context for small models, cheap attention


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardPass:
    """A pass of a model over contexts, and what is read on the way."""

    subject: Subject
    contexts: TokenizedCorpus
    sites: tuple[Site, ...]
    widths: Mapping[Site, int]
    """Columns of each site's matrix; the heads of a per-head site stand side by side."""
    batch_contexts: int
    """Contexts that the model reads at a time."""
    dtype: torch.dtype
    """Type in which activations are kept: one of `DTYPES`."""

    def __post_init__(self) -> None:
        if self.batch_contexts < 1:
            raise ValueRangeError(
                f"batch_contexts must be at least 1; got {self.batch_contexts}. Raise it."
            )
        if self.dtype not in DTYPES.values():
            raise UnknownNameError("dtype", str(self.dtype), map(str, DTYPES.values()))

    @staticmethod
    def plan(
        subject: Subject,
        corpus: Corpus | TokenizedCorpus,
        sites: Site | str | Sequence[Site | str],
        *,
        tokens: int | None,
        context_tokens: int | None,
        batch_contexts: int,
        dtype: torch.dtype,
        seed: int,
    ) -> "ForwardPass":
        """The pass that reads some sites on a corpus; the arguments are those of `harvest`."""
        contexts = _contexts_for(
            subject, corpus, tokens=tokens, context_tokens=context_tokens, seed=seed
        )
        asked = [sites] if isinstance(sites, Site | str) else sites
        resolved = tuple(dict.fromkeys(subject.resolve(site) for site in asked))
        return ForwardPass(
            subject=subject,
            contexts=contexts,
            sites=resolved,
            widths=_widths(subject, resolved, contexts.tokens[:1, :1]),
            batch_contexts=batch_contexts,
            dtype=dtype,
        )

    def rows(
        self,
        numbers: Int[Tensor, " picked"],
        sites: Sequence[Site] | None = None,
        *,
        refuse_non_finite: bool = True,
    ) -> Iterator[dict[Site, Float[Tensor, "token width"]]]:
        """The measured tokens' activations in RAM, batch by batch.

        The model runs only as far as the deepest site, and only as long as a batch's longest
        context.

        Args:
            numbers: which of the contexts to run, in this order.
            sites: which of the sites to read; None for all.
            refuse_non_finite: whether NaN and Inf are refused, or handed on.

        Raises:
            NonFiniteError: if an activation is NaN or infinite, and that is refused.
        """
        sites = self.sites if sites is None else sites
        until = _last(sites)
        for chosen in numbers.split(self.batch_contexts):
            batch = self.contexts[chosen]
            length = int(batch.mask.sum(1).max())
            mask = batch.mask[:, :length]
            seen = self.subject.run(
                batch.tokens[:, :length], mask=None if mask.all() else mask, read=sites, until=until
            ).activations
            measured = batch.measured[:, :length].flatten().nonzero()[:, 0]
            rows: dict[Site, Tensor] = {}
            for site in sites:
                values = seen[site].flatten(0, 1).flatten(1)
                kept = values.index_select(0, measured.to(values.device))
                rows[site] = kept.to("cpu", self.dtype)
            if refuse_non_finite:
                _refuse_non_finite(rows, batch, chosen)
            yield rows


def _contexts_for(
    subject: Subject,
    corpus: Corpus | TokenizedCorpus,
    *,
    tokens: int | None,
    context_tokens: int | None,
    seed: int,
) -> TokenizedCorpus:
    """Contexts of the corpus, in the subject's tokens, that hold about `tokens` measured tokens."""
    if tokens is not None and tokens < 1:
        raise ValueRangeError(f"tokens must be at least 1; got {tokens}. Ask for more.")
    given = corpus.tokens.shape[1] if isinstance(corpus, TokenizedCorpus) else None
    length = given or context_tokens or min(_DEFAULT_CONTEXT_TOKENS, subject.context_tokens)
    if length > subject.context_tokens or context_tokens not in (None, length):
        raise ValueRangeError(
            f"context_tokens must be at most the {subject.context_tokens} that {subject.name!r} "
            f"reads, and the corpus's own if it is tokenized; got {context_tokens} for contexts of "
            f"{length}. Change it, or tokenize anew."
        )
    if isinstance(corpus, Corpus):
        if subject.tokenizer is None:
            raise ValueRangeError(
                f"A corpus of texts needs a tokenizer; got the subject {subject.name!r} without "
                "one. Load it with tokenizer=…, or pass a TokenizedCorpus."
            )
        corpus = tokenize(corpus, subject.tokenizer, context_tokens=length)
    if tokens is not None:
        corpus = corpus.take(tokens, derived(seed, "contexts"))
    if corpus.n_tokens == 0:
        raise TooFewTokensError(
            f"A harvest needs measured tokens; got none in {len(corpus)} contexts. Add text."
        )
    return corpus


def _widths(
    subject: Subject, sites: tuple[Site, ...], token: Int[Tensor, "1 1"]
) -> dict[Site, int]:
    """What one token leaves at each site, flattened."""
    if not sites:
        raise ValueRangeError("At least one site must be named; got none. Try 'resid_post.0'.")
    seen = subject.run(token, read=sites, until=_last(sites)).activations
    for site in sites:
        if site.role == "attn_pattern" or seen[site].shape[:2] != token.shape:
            raise ShapeError(
                f"A harvest's site must have one activation per token; got {str(site)!r} with "
                f"{tuple(seen[site].shape)} for one token. Read it with subject.run(…) instead."
            )
    return {site: seen[site].numel() for site in sites}


def _last(sites: Sequence[Site]) -> Site | None:
    """Where the forward pass may stop; None where the order of the sites is not known."""
    if len(sites) == 1:
        return sites[0]
    if any(site.is_module_port for site in sites):
        return None
    deepest = max(site.layer for site in sites)
    there = [site for site in sites if site.layer == deepest]
    # Which of attention and MLP a block runs first is the block's affair: let it end.
    return there[0] if len(there) == 1 else Site("resid_post", deepest)


def _refuse_non_finite(
    rows: Mapping[Site, Tensor], batch: TokenizedCorpus, numbers: Tensor
) -> None:
    for site, values in rows.items():
        # One number tells in nearly every case, without a mask as large as the activations.
        if values.sum(dtype=torch.float64).isfinite():
            continue
        bad = int((~values.isfinite().all(1)).nonzero()[0, 0])
        context, position = batch.measured.nonzero()[bad].tolist()
        document = batch.corpus.documents[int(batch.document[context])]
        raise NonFiniteError(
            f"Activations must be finite; got NaN or Inf at {str(site)!r} in context "
            f"{int(numbers[context])}, token {position} (document {document.name!r}). "
            "Load the model and keep its activations in float32, or leave this document out."
        )
