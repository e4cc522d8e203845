"""Where a transformer's tensors are: found by what its modules compute, not by their names.

The model runs once on random tokens while the first tensor that enters and leaves each module is
recorded. In the first block, the roles are those tensors that satisfy the residual identities::

    sequential block:  resid_pre + attn_out == resid_mid,  resid_mid + mlp_out == resid_post
    parallel block:    resid_pre + attn_out + mlp_out == resid_post

so a post-norm (Gemma), a dropout (Phi-3) or a missing MLP module (OPT) needs no special case.
What was found in the first block is verified in all of them by `modelassay.subjects.verify`.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modelassay.subjects.hooks import Port, first_tensor
from modelassay.subjects.site import ROLES
from modelassay.subjects.structure import Structure, close, refusal


@dataclass(frozen=True, slots=True)
class _Event:
    """The first tensor that entered or left a module."""

    path: str
    end: Literal["in", "out"]
    tensor: Tensor
    items: int | None
    """Length of the tuple that left; None for a tensor."""
    pattern: tuple[int, int] | None
    """Position in that tuple of attention weights, and their number of heads."""
    kept: bool = True
    """Whether the model left the tensor as it was to the end of its pass."""


def resolve_structure(module: nn.Module, run: Callable[[], Any]) -> Structure:
    """Find the blocks of a decoder and the ports of its roles.

    Args:
        module: a causal language model.
        run: calls the model on a few random tokens.

    Raises:
        UnsupportedModelError: no list of blocks, no attention weights, or no identity holds.
    """
    blocks = _find_blocks(module)
    events = _record(module, run)
    inside = _within(events, blocks[0])
    if not inside or inside[0].tensor.shape != inside[-1].tensor.shape:
        raise refusal(module, f"{blocks[0]} must map a residual stream to one of the same shape.")
    pre, post = inside[0], inside[-1]
    attention = _find_attention(inside)
    if attention is None:
        raise refusal(
            module,
            f"A module in {blocks[0]} must return attention weights [batch head token token].",
        )
    found = _find_branches(inside, attention.path)
    if found is None:
        raise refusal(
            module,
            f"resid_pre + attn_out + mlp_out must equal resid_post for two modules in {blocks[0]}; "
            "found none. Is a branch scaled, or the sum normed?",
        )
    attn_out, resid_mid, mlp_out = found
    item, n_heads = attention.pattern or (0, 0)
    trailing = tuple(pre.tensor.shape[2:])
    ports = {
        "resid_pre": Port("", "in"),
        "attn_in": Port(attention.path, "in", None, trailing),
        "attn_pattern": Port(attention.path, "out", item),
        "attn_out": Port(attn_out.path, "out", None, trailing),
        "mlp_out": Port(mlp_out.path, "out", None, trailing),
        "resid_post": Port("", "out"),
    }
    if resid_mid is not None:
        ports["resid_mid"] = Port(resid_mid.path, "in", None, trailing)
    block = module.get_submodule(blocks[0])
    ports |= _head_port(block, inside, attention, attn_out, n_heads)
    ports |= _mlp_ports(block, inside, attention.path, mlp_out)
    kept = {(event.path, event.end) for event in inside if event.kept}
    widths = {role: (port.trailing or trailing)[-1] for role, port in ports.items()}
    return Structure(
        blocks=blocks,
        ports={role: ports[role] for role in ROLES if role in ports},
        widths=widths | {"attn_pattern": n_heads},
        n_heads=n_heads,
        d_model=trailing[-1],
        final_norm=_find_final_norm(module, events, blocks[-1]),
        block_items=post.items,
        kept=frozenset(role for role, port in ports.items() if (port.path, port.end) in kept),
    )


def _find_blocks(module: nn.Module) -> tuple[str, ...]:
    """The longest list of modules of one class that lies in no other such list."""
    best: tuple[str, ...] = ()
    for path, part in module.named_modules():
        alike = len({type(child) for child in part.children()}) == 1
        nested = any(path.startswith(block + ".") for block in best)
        if isinstance(part, nn.ModuleList) and alike and not nested and len(part) > len(best):
            best = tuple(f"{path}.{name}" for name, _ in part.named_children())
    if not best:
        raise refusal(module, "A language model must hold its blocks in an nn.ModuleList.")
    return best


def _record(module: nn.Module, run: Callable[[], Any]) -> list[_Event]:
    """The first tensors of all modules, in order; without modules that run more than once."""
    events: list[_Event] = []
    originals: list[tuple[Tensor, int]] = []

    def record(path: str, end: Literal["in", "out"], values: Any) -> None:
        tensor = first_tensor(values)
        if tensor is not None:
            items = len(values) if end == "out" and isinstance(values, tuple) else None
            events.append(_Event(path, end, tensor.clone(), items, _pattern_in(values)))
            originals.append((tensor, tensor._version))

    with ExitStack() as stack, torch.no_grad():
        for path, part in module.named_modules():
            before = part.register_forward_pre_hook(
                lambda _part, args, options, path=path: record(
                    path, "in", (*args, *options.values())
                ),
                with_kwargs=True,
            )
            stack.callback(before.remove)
            after = part.register_forward_hook(
                lambda _part, _args, values, path=path: record(path, "out", values)
            )
            stack.callback(after.remove)
        run()
    events = [
        replace(event, kept=tensor._version == version)
        for event, (tensor, version) in zip(events, originals, strict=True)
    ]
    calls = Counter((event.path, event.end) for event in events)
    # A module that runs twice (the dropout of Phi's two branches) names no single tensor.
    return [event for event in events if calls[event.path, event.end] == 1]


def _pattern_in(values: Any) -> tuple[int, int] | None:
    """Position and number of heads of attention weights: square, with rows that sum to one."""
    if not isinstance(values, tuple):
        return None
    for item, value in enumerate(values):
        if isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] == value.shape[-2]:
            rows = value.float().sum(-1)
            if torch.allclose(rows, torch.ones_like(rows), atol=1e-2):
                return item, value.shape[1]
    return None


def _within(events: Sequence[_Event], block: str) -> list[_Event]:
    """The events of a block and its parts, with paths relative to the block."""
    return [
        replace(event, path=event.path[len(block) + 1 :])
        for event in events
        if event.path == block or event.path.startswith(block + ".")
    ]


def _find_attention(events: Sequence[_Event]) -> _Event | None:
    """What left the outermost module, below the block itself, that returns attention weights."""
    found = [event for event in events if event.path and event.pattern is not None]
    return min(found, key=lambda event: event.path.count("."), default=None)


def _find_branches(
    events: Sequence[_Event], attention: str
) -> tuple[_Event, _Event | None, _Event] | None:
    """The tensors that are added to the residual stream, and what lies between the two sums."""
    pre, post = events[0].tensor, events[-1].tensor
    start = next(i for i, event in enumerate(events) if event.path == attention)
    parts = [
        replace(event, tensor=event.tensor.reshape(pre.shape))
        for event in events[start:-1]
        if event.path
        and event.tensor.numel() == pre.numel()
        # OPT flattens batch and token before its MLP.
        and event.tensor.shape[-1] == pre.shape[-1]
    ]
    outs = [(i, event) for i, event in enumerate(parts) if event.end == "out"]
    # The last output that fits is the one that is added: dropouts and post-norms come after.
    for i, attn_out in reversed(outs):
        total = pre + attn_out.tensor
        for j in range(i + 1, len(parts)):
            mid = parts[j]
            if mid.end == "in" and close(total, mid.tensor, (pre, attn_out.tensor)):
                for k, mlp_out in reversed(outs):
                    added = mid.tensor + mlp_out.tensor
                    if k > j and close(added, post, (mid.tensor, mlp_out.tensor)):
                        return attn_out, mid, mlp_out
    for i, attn_out in reversed(outs):
        for k, mlp_out in reversed(outs):
            terms = (pre, attn_out.tensor, mlp_out.tensor)
            if k > i and close(sum(terms[1:], pre), post, terms):
                return attn_out, None, mlp_out
    return None


def _last_product(
    block: nn.Module, events: Sequence[_Event], paths: Sequence[str]
) -> tuple[_Event, _Event] | None:
    """What enters and leaves the last matrix product in some parts of a block."""
    for position in range(len(events) - 1, 0, -1):
        out = events[position]
        inside = any(out.path == path or out.path.startswith(path + ".") for path in paths)
        part = block.get_submodule(out.path)
        weight = getattr(part, "weight", None)
        is_product = isinstance(weight, Tensor) and weight.ndim == 2 and not list(part.children())
        if out.end == "out" and inside and is_product:
            return next(e for e in events if e.path == out.path and e.end == "in"), out
    return None


def _head_port(
    block: nn.Module, events: Sequence[_Event], attention: _Event, attn_out: _Event, n_heads: int
) -> dict[str, Port]:
    """The input of the attention's output projection, split into heads."""
    ends = _last_product(block, events, [attention.path])
    if ends is None or ends[0].tensor.shape[-1] % n_heads:
        return {}
    projected = ends[1].tensor
    if not (close(projected, attention.tensor) or close(projected, attn_out.tensor)):
        return {}
    trailing = (n_heads, ends[0].tensor.shape[-1] // n_heads)
    return {"head_out": Port(ends[0].path, "in", None, trailing)}


def _mlp_ports(
    block: nn.Module, events: Sequence[_Event], attention: str, mlp_out: _Event
) -> dict[str, Port]:
    """What the MLP reads, and what its last product reads."""
    children = [
        event
        for event in events
        if event.end == "in"
        and event.path
        and "." not in event.path
        and not (attention == event.path or attention.startswith(event.path + "."))
        and any(weight.ndim >= 2 for weight in block.get_submodule(event.path).parameters())
    ]
    ends = _last_product(block, events, [child.path for child in children])
    if not children or any(close(child.tensor, children[0].tensor) for child in children[1:]):
        return {}
    width = children[0].tensor.shape[-1]
    ports = {"mlp_in": Port(children[0].path, "in", None, (width,))}
    left = next(e for e in events if e.path == children[-1].path and e.end == "out")
    if ends is not None and ends[0] is not children[0]:
        hidden, product = ends
        # Flat, because OPT's MLP has no batch axis.
        written = product.tensor.flatten()
        if any(close(written, end.tensor.flatten()) for end in (mlp_out, left)):
            ports["mlp_hidden"] = Port(hidden.path, "in", None, (hidden.tensor.shape[-1],))
    return ports


def _find_final_norm(module: nn.Module, events: Sequence[_Event], last_block: str) -> str | None:
    """The module between the last block and the unembedding."""
    head = module.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    end = next(i for i, e in enumerate(events) if e.path == last_block and e.end == "out")
    resid = events[end].tensor
    for event in events[end + 1 :]:
        if event.end == "in" and close(event.tensor, resid):
            return None if module.get_submodule(event.path) is head else event.path
    return None
