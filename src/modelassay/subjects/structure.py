"""`Structure`: the places of a transformer's roles, and the refusal when they cannot be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelassay.core.errors import UnsupportedModelError
from modelassay.subjects.hooks import Port


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """The blocks of a decoder and the ports of its roles."""

    blocks: tuple[str, ...]
    """Paths of the blocks, in order."""
    ports: dict[str, Port]
    """Role -> port, with the path relative to its block."""
    widths: dict[str, int]
    """Role -> size of its feature axis; for attention patterns the number of heads."""
    n_heads: int
    d_model: int
    final_norm: str | None
    """Path of the norm between the last block and the unembedding, if there is one."""
    block_items: int | None
    """Length of the tuple that a block returns; None if it returns a tensor."""
    kept: frozenset[str]
    """Roles whose tensors the model never writes into after they were computed."""

    def port(self, role: str, layer: int) -> Port:
        """The port of a role in one layer, with the path inside the model."""
        port = self.ports[role]
        path = f"{self.blocks[layer]}.{port.path}" if port.path else self.blocks[layer]
        return Port(path, port.end, port.item, port.trailing)

    def block_result(self, resid: Tensor) -> Any:
        """A residual stream in the form in which a block returns it."""
        return resid if self.block_items is None else (resid, *[None] * (self.block_items - 1))

    def layer_of(self, path: str) -> int | None:
        """The block that holds the module at `path`, if any does."""
        holds = (path == block or path.startswith(block + ".") for block in self.blocks)
        return next((layer for layer, held in enumerate(holds) if held), None)


def is_language_model(module: nn.Module) -> bool:
    """Whether a module names its unembedding, as Hugging Face's causal language models do."""
    getter = getattr(module, "get_output_embeddings", None)
    return callable(getter) and isinstance(getter(), nn.Module)


def refusal(module: nn.Module, what_failed: str) -> UnsupportedModelError:
    """The error for a model whose structure cannot be verified, with its module tree."""
    return UnsupportedModelError(
        f"{what_failed}\n\n{module_tree(module)}\n\n"
        "The roles of this model cannot be trusted, so they are refused. Read and edit it by "
        "module ports instead: load_subject(…, roles=False), then 'path.of.module:out'."
    )


def module_tree(module: nn.Module, depth: int = 4) -> str:
    """The modules of a model, one a line, with repeated siblings told once."""
    lines = [type(module).__name__]

    def describe(parent: nn.Module, level: int) -> None:
        last = ""
        for name, child in parent.named_children():
            told, last = str(child) == last, str(child)
            if not told:
                lines.append(f"{'  ' * level}{name}: {type(child).__name__}")
                if level < depth:
                    describe(child, level + 1)

    describe(module, 1)
    return "\n".join(lines)


def close(left: Tensor, right: Tensor, terms: Sequence[Tensor] = ()) -> bool:
    """Whether two tensors agree to the rounding of a sum of `terms`, entry by entry."""
    if left.shape != right.shape:
        return False
    # Eight roundings (ours): a block adds three terms, in an order that we do not know.
    size = sum((term.abs().float() for term in terms), right.abs().float())
    return bool(((left - right).abs() <= 8 * torch.finfo(right.dtype).eps * size).all())
