"""Run a model on contexts and keep the activations of the measured tokens."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import Corpus, TokenizedCorpus, tokenize
from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_DEFAULT_CONTEXT_TOKENS = 256  # ours: enough context for small models, cheap attention


def contexts_for(
    subject: Subject, corpus: Corpus | TokenizedCorpus, context_tokens: int | None = None
) -> TokenizedCorpus:
    """The corpus in the subject's tokens, in contexts that the subject can read.

    Raises:
        ValueRangeError: if contexts are longer than the subject's, or it has no tokenizer.
    """
    most = subject.context_tokens
    if isinstance(corpus, TokenizedCorpus):
        length = corpus.tokens.shape[1]
        if context_tokens not in (None, length):
            raise ValueRangeError(
                f"context_tokens must be the tokenized corpus's {length}; got {context_tokens}. "
                "Leave it out, or tokenize anew."
            )
    else:
        length = min(_DEFAULT_CONTEXT_TOKENS, most) if context_tokens is None else context_tokens
    if length > most:
        raise ValueRangeError(
            f"Contexts must be at most as long as {subject.name!r} reads, {most} tokens; "
            f"got {length}. Lower context_tokens."
        )
    if isinstance(corpus, TokenizedCorpus):
        return corpus
    if subject.tokenizer is None:
        raise ValueRangeError(
            f"A corpus of texts needs a tokenizer; got the subject {subject.name!r} without one. "
            "Load it with tokenizer=…, or pass a TokenizedCorpus."
        )
    return tokenize(corpus, subject.tokenizer, context_tokens=length)


def resolve_sites(
    subject: Subject, sites: Site | str | Sequence[Site | str]
) -> tuple[tuple[Site, ...], dict[Site, int]]:
    """The sites, each once, and the width of a token's row at each (heads side by side).

    Raises:
        UnknownNameError: if the subject has no such site.
        ValueRangeError: if there are none, or a site has no activation per token.
    """
    asked = [sites] if isinstance(sites, Site | str) else sites
    resolved = tuple(dict.fromkeys(subject.resolve(site) for site in asked))
    if not resolved:
        raise ValueRangeError("At least one site must be named; got none. Try 'resid_post.0'.")
    for site in resolved:
        if site.role == "attn_pattern":
            raise ValueRangeError(
                f"A harvest's site must have one activation per token; got {str(site)!r}, whose "
                "rows depend on the context's length. Read it with subject.run(…) instead."
            )
    some = torch.zeros(1, 1, dtype=torch.int64, device=subject.device)
    seen = subject.run(some, read=resolved, until=_last(resolved)).activations
    return resolved, {site: seen[site][0, 0].numel() for site in resolved}


def rows_of_contexts(
    subject: Subject,
    contexts: TokenizedCorpus,
    sites: Sequence[Site],
    numbers: Int[Tensor, " picked"],
    *,
    batch_contexts: int,
    dtype: torch.dtype,
) -> Iterator[dict[Site, Float[Tensor, "token width"]]]:
    """The measured tokens' activations in RAM, batch by batch, in the order of `numbers`.

    The model runs only as far as the deepest site, and only as long as a batch's longest context.

    Args:
        numbers: which of the contexts to run.
        dtype: type of the rows.

    Raises:
        NonFiniteError: if an activation is NaN or infinite.
        ShapeError: if a site's tensor has no row for each token.
    """
    until = _last(sites)
    for chosen in numbers.split(batch_contexts):
        batch = contexts[chosen]
        length = int(batch.mask.sum(1).max())
        tokens, mask = batch.tokens[:, :length], batch.mask[:, :length]
        run = subject.run(
            tokens.to(subject.device),
            mask=None if mask.all() else mask.to(subject.device),
            read=tuple(sites),
            until=until,
        )
        measured = batch.measured[:, :length].flatten().nonzero()[:, 0].to(subject.device)
        rows: dict[Site, Tensor] = {}
        for site in sites:
            values = run.activations[site]
            if values.shape[:2] != tokens.shape:
                raise ShapeError(
                    f"A harvest's site must have a row for each of {tuple(tokens.shape)} tokens; "
                    f"got {tuple(values.shape)} at {str(site)!r}. Choose another site."
                )
            kept = values.flatten(0, 1).flatten(1).index_select(0, measured)
            rows[site] = kept.to("cpu", dtype)
        _refuse_non_finite(rows, batch, chosen)
        yield rows


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
        if values.sum(dtype=torch.float64).isfinite() or values.isfinite().all():
            continue
        bad = int((~values.isfinite().all(1)).nonzero()[0, 0])
        context, position = batch.measured.nonzero()[bad].tolist()
        document = batch.corpus.documents[int(batch.document[context])]
        raise NonFiniteError(
            f"Activations must be finite; got NaN or Inf at {str(site)!r} in context "
            f"{int(numbers[context])}, token {position} (document {document.name!r}). "
            "Load the model and store its activations in float32, or leave this document out."
        )
