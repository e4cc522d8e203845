"""Identities that a model's resolved structure must satisfy before anyone may use it.

On random tokens, in every block: ``resid_post[l] == resid_pre[l + 1]`` and the residual
identities of `modelassay.subjects.resolution`. At the end: ``logits_of(resid_post[-1])`` equals
the model's logits. Edits that return their argument change no bit of the logits; in the last
block, an edit of any role reads back as it was set, and changes the logits. The last block, run
behind a prefix that is not computed again, gives the logits of the whole model.
"""

import torch
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.subjects.site import Site
from modelassay.subjects.structure import close, refusal
from modelassay.subjects.subject import Subject

_BATCH, _TOKENS = 2, 6  # ours: small, and different from each other


def sample_tokens(vocab_size: int, context_tokens: int, seed: int) -> Tensor:
    """A few random tokens on which a structure is resolved or verified."""
    shape = (_BATCH, min(_TOKENS, context_tokens))
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def verify(subject: Subject) -> None:
    """Check a subject's structure by identity.

    Raises:
        UnsupportedModelError: an identity fails; the error says which, and shows the modules.
    """
    try:
        failed = _first_failure(subject)
    except (ShapeError, ValueRangeError) as error:
        failed = str(error)
    if failed is not None:
        raise refusal(subject.module, failed)


def _first_failure(subject: Subject) -> str | None:
    tokens = sample_tokens(subject.vocab_size, subject.context_tokens, seed=1)
    clean = subject.run(tokens, read=subject.sites())
    assert clean.logits is not None
    for layer in range(subject.n_layers):
        failed = _failure_in_block(layer, clean.activations)
        if failed is not None:
            return failed
    last = subject.n_layers - 1
    if not _near(subject.logits_of(clean.activations[Site("resid_post", last)]), clean.logits):
        return "logits_of(resid_post[-1]) must equal the model's logits; it does not."
    inert = subject.run(tokens, edit={site: lambda value: value for site in subject.sites()})
    if inert.logits is None or not torch.equal(inert.logits, clean.logits):
        return "Edits that return their argument must change nothing; they changed the logits."
    rest = subject.downstream(Site("resid_pre", last), tokens)
    if not _near(rest(rest.activation).logits, clean.logits):
        return "The model behind a fixed prefix must reproduce the logits; it does not."
    for site in (site for site in subject.sites() if site.layer == last):
        # Batch rows change places: a change that any tensor of the model can bear.
        swapped = clean.activations[site].flip(0)
        run = rest.rest(edit={site: lambda _value, swapped=swapped: swapped}, read=[site])
        if run.logits is None or torch.equal(run.logits, clean.logits):
            return f"An edit of {site} must change the logits; it did not."
        if not _near(run.activations[site], swapped):
            return f"An edit of {site} must read back as it was set; it does not."
    return None


def _failure_in_block(layer: int, at: dict[Site, Tensor]) -> str | None:
    pre, post = at[Site("resid_pre", layer)], at[Site("resid_post", layer)]
    attn_out, mlp_out = at[Site("attn_out", layer)], at[Site("mlp_out", layer)]
    mid = at.get(Site("resid_mid", layer))
    following = at.get(Site("resid_pre", layer + 1), post)
    if mid is None:
        if not close(pre + attn_out + mlp_out, post, (pre, attn_out, mlp_out)):
            return f"resid_pre + attn_out + mlp_out must equal resid_post; not in block {layer}."
    elif not close(pre + attn_out, mid, (pre, attn_out)):
        return f"resid_pre + attn_out must equal resid_mid; not in block {layer}."
    elif not close(mid + mlp_out, post, (mid, mlp_out)):
        return f"resid_mid + mlp_out must equal resid_post; not in block {layer}."
    if not torch.equal(post, following):
        return f"resid_post.{layer} must reach the next block as it is; it was changed between."
    return None


def _near(left: Tensor | None, right: Tensor) -> bool:
    """Equal up to the rounding of long sums, which other batch shapes add up in another order."""
    if left is None or left.shape != right.shape:
        return False
    # 512 roundings (ours), of the largest entry; half-precision models get 5 %.
    tolerance = min(512 * torch.finfo(right.dtype).eps, 0.05)
    return bool((left - right).abs().max() <= tolerance * right.abs().max())
