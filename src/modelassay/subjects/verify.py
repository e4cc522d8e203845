"""Identities that a model's resolved structure must satisfy before anyone may use it.

On random tokens, in every block: ``resid_post[l] == resid_pre[l + 1]``, and the residual
identities of `modelassay.subjects.structure`. At the end, ``logits_of(resid_post[-1])`` equals
the model's logits. In the last block, an edit of every role changes the logits, and one that
returns its argument changes no bit of them. ``downstream`` of a clean value gives the logits.
"""

import torch
from torch import Tensor

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
    tokens = sample_tokens(subject.vocab_size, subject.context_tokens, seed=1)
    clean = subject.run(tokens, read=subject.sites())
    assert clean.logits is not None
    for layer in range(subject.n_layers):
        _verify_block(subject, layer, clean.activations)
    last = clean.activations[Site("resid_post", subject.n_layers - 1)]
    if not _near(subject.logits_of(last), clean.logits):
        raise refusal(subject.module, "logits_of(resid_post[-1]) must equal the model's logits.")
    _verify_edits(subject, tokens, clean.logits)


def _verify_block(subject: Subject, layer: int, at: dict[Site, Tensor]) -> None:
    pre, post = at[Site("resid_pre", layer)], at[Site("resid_post", layer)]
    attn_out, mlp_out = at[Site("attn_out", layer)], at[Site("mlp_out", layer)]
    mid = at.get(Site("resid_mid", layer))
    if mid is None:
        terms = (pre, attn_out, mlp_out)
        if not close(pre + attn_out + mlp_out, post, terms):
            raise refusal(
                subject.module, f"resid_pre + attn_out + mlp_out must be resid_post in {layer=}."
            )
    else:
        if not close(pre + attn_out, mid, (pre, attn_out)):
            raise refusal(subject.module, f"resid_pre + attn_out must be resid_mid in {layer=}.")
        if not close(mid + mlp_out, post, (mid, mlp_out)):
            raise refusal(subject.module, f"resid_mid + mlp_out must be resid_post in {layer=}.")
    following = at.get(Site("resid_pre", layer + 1))
    if following is not None and not torch.equal(post, following):
        raise refusal(
            subject.module, f"resid_post.{layer} must reach the next block as it is; it changed."
        )


def _verify_edits(subject: Subject, tokens: Tensor, logits: Tensor) -> None:
    for site in subject.sites()[-subject.n_layers and -len(subject.sites()) // subject.n_layers :]:
        rest = subject.downstream(site, tokens)
        same = subject.run(tokens, edit={site: lambda value: value}).logits
        if same is None or not torch.equal(same, logits):
            raise refusal(subject.module, f"An edit of {site} that changes nothing must be inert.")
        if not _near(rest(rest.activation).logits, logits):
            raise refusal(subject.module, f"downstream({site}) must reproduce the logits.")
        changed = rest(_disturbed(rest.activation)).logits
        if changed is None or torch.equal(changed, logits):
            raise refusal(subject.module, f"An edit of {site} must change the logits.")


def _disturbed(value: Tensor) -> Tensor:
    """The value with its tokens in another order: a change of natural size."""
    return value.roll(1, dims=0)


def _near(left: Tensor | None, right: Tensor) -> bool:
    """Equal up to the rounding of long sums, which other batch shapes add up in another order."""
    if left is None or left.shape != right.shape:
        return False
    # 512 roundings (ours), of the largest entry; half-precision models get 5 %.
    tolerance = min(512 * torch.finfo(right.dtype).eps, 0.05)
    return bool((left - right).abs().max() <= tolerance * right.abs().max())
