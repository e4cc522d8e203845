"""A reader of small transformers without layer norm, stored under TransformerLens' names.

The one that we ship tests for adds two numbers modulo 113, and its features are known.

Reference: Nanda et al. 2023, "Progress measures for grokking via mechanistic interpretability".
"""

from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from modelassay.core.files import read_tensors
from modelassay.subjects.load import verified_subject
from modelassay.subjects.subject import Subject


class _Attention(nn.Module):
    def __init__(self, d_model: int, n_heads: int, d_head: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, n_heads * d_head)
        self.key = nn.Linear(d_model, n_heads * d_head)
        self.value = nn.Linear(d_model, n_heads * d_head)
        self.output = nn.Linear(n_heads * d_head, d_model)

    def forward(self, resid: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (
            rearrange(project(resid), "b t (h d) -> b h t d", h=self.n_heads)
            for project in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        pattern = functional.softmax(scores.masked_fill(later, -torch.inf), dim=-1)
        return self.output(rearrange(pattern @ value, "b h t d -> b t (h d)")), pattern


class _MLP(nn.Module):
    def __init__(self, d_model: int, d_hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, d_hidden)
        self.down = nn.Linear(d_hidden, d_model)

    def forward(self, resid: Tensor) -> Tensor:
        return self.down(functional.relu(self.up(resid)))


class _Block(nn.Module):
    def __init__(self, d_model: int, n_heads: int, d_head: int, d_hidden: int) -> None:
        super().__init__()
        self.attention = _Attention(d_model, n_heads, d_head)
        self.mlp = _MLP(d_model, d_hidden)

    def forward(self, resid: Tensor) -> Tensor:
        resid = resid + self.attention(resid)[0]
        return resid + self.mlp(resid)


class HookedTransformer(nn.Module):
    """Embedding, positions, blocks of attention and ReLU MLP, unembedding; no layer norm."""

    def __init__(
        self,
        *,
        vocab_size: int,
        context_tokens: int,
        d_model: int,
        n_layers: int,
        n_heads: int,
        d_head: int,
        d_hidden: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Embedding(context_tokens, d_model)
        self.blocks = nn.ModuleList(
            _Block(d_model, n_heads, d_head, d_hidden) for _ in range(n_layers)
        )
        self.unembed = nn.Linear(d_model, vocab_size)

    def forward(self, tokens: Int[Tensor, "batch token"]) -> Float[Tensor, "batch token vocab"]:
        """Logits of the next token."""
        resid = self.embed(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            resid = block(resid)
        return self.unembed(resid)

    def get_output_embeddings(self) -> nn.Module:
        """The unembedding, under the name that Hugging Face's models use."""
        return self.unembed


def load_modular_addition(folder: str | Path) -> Subject:
    """Load a transformer without layer norm that is stored under TransformerLens' names.

    Args:
        folder: holds ``model.safetensors``; its tokens are ``(a, b, 113)`` and the logits at the
            last position answer ``(a + b) mod 113``.

    Raises:
        CorruptFileError: the file is damaged.
    """
    folder = Path(folder)
    weights = read_tensors(folder / "model.safetensors")
    n_heads, d_model, d_head = weights["blocks.0.attn.W_Q"].shape
    model = HookedTransformer(
        vocab_size=weights["embed.W_E"].shape[0],
        context_tokens=weights["pos_embed.W_pos"].shape[0],
        d_model=d_model,
        n_layers=len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        n_heads=n_heads,
        d_head=d_head,
        d_hidden=weights["blocks.0.mlp.W_in"].shape[1],
    )
    model.load_state_dict(_translated(weights, len(model.blocks)))
    return verified_subject(
        folder.resolve().name,
        model.requires_grad_(False).eval(),
        None,
        context_tokens=model.positions.num_embeddings,
    )


def _translated(weights: dict[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """TransformerLens' tensors under this module's names, transposed for `nn.Linear`."""
    state = {
        "embed.weight": weights["embed.W_E"],
        "positions.weight": weights["pos_embed.W_pos"],
        "unembed.weight": weights["unembed.W_U"].T,
        "unembed.bias": weights["unembed.b_U"],
    }
    for layer in range(n_layers):
        old, new = f"blocks.{layer}.attn.", f"blocks.{layer}.attention."
        for letter, name in (("Q", "query"), ("K", "key"), ("V", "value")):
            state[f"{new}{name}.weight"] = rearrange(
                weights[f"{old}W_{letter}"], "h m d -> (h d) m"
            )
            state[f"{new}{name}.bias"] = weights[f"{old}b_{letter}"].flatten()
        state[f"{new}output.weight"] = rearrange(weights[f"{old}W_O"], "h d m -> m (h d)")
        state[f"{new}output.bias"] = weights[f"{old}b_O"]
        for old_end, name in (("in", "up"), ("out", "down")):
            state[f"blocks.{layer}.mlp.{name}.weight"] = weights[
                f"blocks.{layer}.mlp.W_{old_end}"
            ].T
            state[f"blocks.{layer}.mlp.{name}.bias"] = weights[f"blocks.{layer}.mlp.b_{old_end}"]
    return state
