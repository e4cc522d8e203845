"""The residual stream at the end of a model as a sum of what its parts wrote.

Embedding, then for each layer its heads, its attention's bias and its MLP; or, in place of one
site, the latents of a dictionary. Nothing is left out: the parts are checked to sum to the stream.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamParts:
    """What was written into the stream at one position of each prompt."""

    names: tuple[str, ...]
    """"embedding", "L3H0", "attention 3", "attention bias 3", "MLP 3", "latent 17", …"""
    parts: Float[Tensor, "prompt part d_model"]
    stream: Float[Tensor, "prompt d_model"]
    """The last block's output, which the parts sum to."""
    logits: Float[Tensor, "prompt vocab"]
    """The model's own, at the position."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Replacement:
    """A dictionary whose latents stand for the site that it reads."""

    dictionary: Decomposition
    site: Site
    latents: int = 20
    """The most active ones are told apart; the others are summed as "other latents"."""

    def __post_init__(self) -> None:
        if self.site.role not in _SITES:
            raise ValueRangeError(
                f"Latents must stand for a site that is added to the residual stream, or is it: "
                f"{', '.join(_SITES)}; got {self.site}. Use a dictionary of such a site."
            )
        if self.latents < 1:
            raise ValueRangeError(f"latents must be at least 1; got {self.latents}. Raise it.")


@torch.no_grad()
def stream_parts(
    subject: Subject,
    tokens: Int[Tensor, "prompt token"],
    positions: Int[Tensor, " prompt"],
    *,
    heads: bool = True,
    replacement: Replacement | None = None,
) -> StreamParts:
    """Take the last residual stream apart, at one position of each prompt.

    A head's part is its output times its columns of the output projection: the projection is run
    on that head alone. Where the projection's result is normed before it is added (Gemma), heads
    do not add up, and the attention is one part.

    Args:
        subject: a verified language model.
        tokens: prompts of equal length.
        positions: the position of interest in each.
        heads: whether attention is told apart by heads where that is exact.
        replacement: latents in place of a site. With a site of the stream itself, they stand for
            all that was written before it.

    Raises:
        UnsupportedModelError: no verified language model, or the parts do not sum to the stream.
        ValueRangeError: a position outside the prompt.
        ShapeError: a dictionary of another width.
    """
    if subject.structure is None:
        raise UnsupportedModelError(
            f"Attribution needs a language model whose roles were verified; got {subject.name!r}, "
            "which has module ports only. Load it with roles=True."
        )
    if len(positions) != len(tokens) or not bool(
        ((positions >= 0) & (positions < tokens.shape[1])).all()
    ):
        raise ValueRangeError(
            f"positions must be one per prompt, from 0 to {tokens.shape[1] - 1}; got "
            f"{positions.tolist()} for {len(tokens)} prompts. Count from the first token."
        )
    run = subject.run(tokens, read=_wanted(subject, heads, replacement))
    assert run.logits is not None
    rows = torch.arange(len(tokens), device=run.logits.device)
    positions = positions.to(run.logits.device)
    at = {site: value[rows, positions] for site, value in run.activations.items()}
    named = _named_parts(subject, at, heads, replacement)
    parts = torch.stack([part.float() for _, part in named], 1)
    stream = at[Site("resid_post", subject.n_layers - 1)].float()
    _require_sum(subject, parts, stream)
    return StreamParts(
        names=tuple(name for name, _ in named),
        parts=parts,
        stream=stream,
        logits=run.logits[rows, positions],
    )


def _wanted(subject: Subject, heads: bool, replacement: Replacement | None) -> list[Site]:
    assert subject.structure is not None
    roles = ["attn_out", "mlp_out"]
    roles += ["head_out"] if heads and "head_out" in subject.structure.ports else []
    sites = [Site(role, layer) for layer in range(subject.n_layers) for role in roles]
    sites += [Site("resid_pre", 0), Site("resid_post", subject.n_layers - 1)]
    if replacement is not None and replacement.site not in sites:
        sites.append(subject.resolve(replacement.site))
    return sites


Named = tuple[str, Float[Tensor, "prompt d_model"]]


def _named_parts(
    subject: Subject, at: dict[Site, Tensor], heads: bool, replacement: Replacement | None
) -> list[Named]:
    named: list[Named] = [("embedding", at[Site("resid_pre", 0)])]
    replaced = None if replacement is None else replacement.site
    if replacement is not None and replaced == Site("resid_pre", 0):
        named = _latents(replacement, at)
    for layer in range(subject.n_layers):
        for role in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"):
            site = Site(role, layer)
            if replacement is not None and site == replaced and site != Site("resid_pre", 0):
                # Latents of the stream itself stand for all that was written before.
                named = (named if role in ("attn_out", "mlp_out") else []) + _latents(
                    replacement, at
                )
            elif role == "attn_out":
                named += _attention(subject, at, layer, heads)
            elif role == "mlp_out":
                named.append((f"MLP {layer}", at[site]))
    return named


def _attention(subject: Subject, at: dict[Site, Tensor], layer: int, heads: bool) -> list[Named]:
    """The heads and their projection's bias, if they sum to what attention added."""
    whole = at[Site("attn_out", layer)]
    found = at.get(Site("head_out", layer)) if heads else None
    assert subject.structure is not None
    if found is None:
        return [(f"attention {layer}", whole)]
    port = subject.structure.port("head_out", layer)
    projection = subject.module.get_submodule(port.path)
    written, bias = _through_projection(projection, found)
    total = written.sum(1) + bias
    if not _close(total, whole, written):
        return [(f"attention {layer}", whole)]
    named = [(f"L{layer}H{head}", written[:, head]) for head in range(written.shape[1])]
    if bool(bias.any()):
        named.append((f"attention bias {layer}", bias.expand_as(whole)))
    return named


def _through_projection(
    projection: nn.Module, heads: Float[Tensor, "prompt head d_head"]
) -> tuple[Float[Tensor, "prompt head d_model"], Float[Tensor, " d_model"]]:
    """Each head alone through the output projection, without its bias; and the bias.

    The module itself computes it, so that no layout of weights has to be known.
    """
    n_prompts, n_heads, d_head = heads.shape
    alone = torch.zeros(n_prompts, n_heads, n_heads, d_head, dtype=heads.dtype, device=heads.device)
    each = torch.arange(n_heads, device=heads.device)
    alone[:, each, each] = heads
    bias = projection(torch.zeros_like(alone[0, :1].flatten(1)))[0]
    return projection(alone.flatten(2)) - bias, bias


def _latents(replacement: Replacement, at: dict[Site, Tensor]) -> list[Named]:
    """The most active latents, the others together, the decoder's bias and the error."""
    dictionary = replacement.dictionary
    value = at[replacement.site].float()
    codes = dictionary.encode(value)
    directions = dictionary.directions.to(value)
    dense = torch.zeros(len(value), codes.width, device=value.device)
    dense.scatter_add_(1, codes.indices.to(value.device), codes.values.to(value))
    # By the size of what they write, so that the choice does not hang on the decoder's scale.
    size = dense.abs().sum(0) * directions.norm(dim=1)
    active = int((size > 0).sum())
    chosen = size.topk(min(replacement.latents, max(active, 1))).indices
    named = [
        (f"latent {latent}", dense[:, latent, None] * directions[latent])
        for latent in chosen.tolist()
    ]
    bias = dictionary.bias.to(value).expand_as(value)
    others = dense.clone()
    others[:, chosen] = 0
    other = others @ directions
    shown = sum((part for _, part in named), torch.zeros_like(value))
    return [
        *named,
        ("other latents", other),
        ("dictionary bias", bias),
        ("dictionary error", value - shown - other - bias),
    ]


def _require_sum(
    subject: Subject,
    parts: Float[Tensor, "prompt part d_model"],
    stream: Float[Tensor, "prompt d_model"],
) -> None:
    if not _close(parts.sum(1), stream, parts):
        off = float((parts.sum(1) - stream).abs().max())
        raise UnsupportedModelError(
            "The parts of the stream must sum to it; they are off by "
            f"{off:.3g} in {subject.name!r}. Something else writes into its residual stream: no "
            "attribution can be trusted."
        )


def _close(
    left: Float[Tensor, "prompt d_model"],
    right: Float[Tensor, "prompt d_model"],
    terms: Float[Tensor, "prompt part d_model"],
) -> bool:
    """Equal up to the rounding of a sum of as many terms."""
    size = float(terms.abs().sum(1).max())
    # 64 roundings (ours): the order of a long sum is the model's own affair.
    return float((left - right).abs().max()) <= 64 * torch.finfo(right.dtype).eps * max(size, 1e-30)
