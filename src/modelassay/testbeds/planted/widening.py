"""A Llama with room for more: the same function with a wider, rotated residual stream."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from modelassay.core.errors import UnsupportedModelError, ValueRangeError

_READERS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_MLP_READERS = ("mlp.gate_proj", "mlp.up_proj")
_WRITERS = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True, kw_only=True, eq=False)
class Widened:
    """A widened model and where its two parts of the residual stream lie."""

    module: LlamaForCausalLM
    original: Float[Tensor, "d wide"]
    """Orthonormal: the axes of the model that was widened."""
    private: Float[Tensor, "extra wide"]
    """Orthonormal, and orthogonal to those: nothing reads or writes them."""

    @property
    def d_original(self) -> int:
        """Width of the model that was widened."""
        return len(self.original)


@torch.no_grad()
def widened(module: nn.Module, extra: int, generator: torch.Generator) -> Widened:
    """The same language model with `extra` more residual dimensions, in a random basis.

    Three steps, none of which changes the logits:

    - every RMSNorm's gain g is folded into the matrices behind it, ``W <- W diag(g)``;
    - the stream x in R^d becomes (x, 0) in R^D. The norm now averages over D entries, so its gain
      is sqrt(d / D) and its epsilon becomes eps d / D: then
      ``sqrt(d/D) x / sqrt(|x|²/D + eps d/D) = x / sqrt(|x|²/d + eps)``, as before;
    - the stream is rotated by one orthogonal Q, ``x <- (x, 0) Q``, which constant gains allow.

    The unembedding is untied, since it takes up the last gain and the embedding does not.

    Args:
        module: a `LlamaForCausalLM` with SwiGLU; it is left alone.
        extra: new dimensions; the new width must be a multiple of the number of heads.
        generator: draws Q.

    Raises:
        UnsupportedModelError: if the module is no Llama, or its MLP is not gated by SiLU.
        ValueRangeError: if `extra` is below 1 or the new width does not suit the heads.

    Reference: Elhage et al. 2021 (the residual stream has no privileged basis); Ashkboos et al.
    2024, SliceGPT (RMSNorm commutes with rotations once its gain is folded away).
    """
    _check(module, extra)
    assert isinstance(module, LlamaForCausalLM)
    d, wide = module.config.hidden_size, module.config.hidden_size + extra
    noise = torch.randn(wide, wide, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(noise).Q
    twin = _empty(module, wide)
    state = {name: value.double() for name, value in module.state_dict().items()}
    head: Any = module.get_output_embeddings()
    state["lm_head.weight"] = head.weight.double()
    new = _rotated(state, module.config.num_hidden_layers, rotation, d)
    twin.load_state_dict({name: value.to(module.dtype) for name, value in new.items()})
    twin = twin.requires_grad_(requires_grad=False).eval()
    basis = rotation.to(module.dtype)
    return Widened(module=twin, original=basis[:d], private=basis[d:])


def _check(module: nn.Module, extra: int) -> None:
    if not isinstance(module, LlamaForCausalLM) or module.config.hidden_act != "silu":
        raise UnsupportedModelError(
            "Features can be planted in a LlamaForCausalLM with SwiGLU; got "
            f"{type(module).__name__}. Use load_subject('bundled').module."
        )
    d, heads = module.config.hidden_size, module.config.num_attention_heads
    if extra < 1 or (d + extra) % heads:
        raise ValueRangeError(
            f"extra must be at least 1, and {d} + extra a multiple of the {heads} heads; got "
            f"{extra}. Take {max(heads - d % heads, -(-(d + extra) // heads) * heads - d)}."
        )


def _empty(module: LlamaForCausalLM, wide: int) -> LlamaForCausalLM:
    """A model of the new width, whose weights are still to be loaded."""
    config = copy.deepcopy(module.config)
    config.head_dim = module.config.head_dim or wide // module.config.num_attention_heads
    config.rms_norm_eps = module.config.rms_norm_eps * module.config.hidden_size / wide
    config.hidden_size = wide
    config.tie_word_embeddings = False
    # Initialisers draw from the global generator: what they draw is overwritten, its state kept.
    with torch.random.fork_rng(devices=[]):
        twin: Any = LlamaForCausalLM(config)
    return twin.to(dtype=module.dtype, device=module.device)


def _rotated(
    state: dict[str, Tensor], n_layers: int, rotation: Float[Tensor, "wide wide"], d: int
) -> dict[str, Tensor]:
    """The new model's weights."""
    top, wide = rotation[:d], len(rotation)
    gain = torch.full((wide,), (d / wide) ** 0.5, dtype=torch.float64)
    new = {
        "model.embed_tokens.weight": state["model.embed_tokens.weight"] @ top,
        "lm_head.weight": state["lm_head.weight"] * state["model.norm.weight"] @ top,
        "model.norm.weight": gain,
    }
    for layer in range(n_layers):
        block = f"model.layers.{layer}."
        for norm, readers in (
            ("input_layernorm", _READERS),
            ("post_attention_layernorm", _MLP_READERS),
        ):
            folded = state[f"{block}{norm}.weight"]
            new[f"{block}{norm}.weight"] = gain
            for reader in readers:
                new[f"{block}{reader}.weight"] = state[f"{block}{reader}.weight"] * folded @ top
                _copy_bias(state, new, f"{block}{reader}.bias", None)
        for writer in _WRITERS:
            new[f"{block}{writer}.weight"] = top.T @ state[f"{block}{writer}.weight"]
            _copy_bias(state, new, f"{block}{writer}.bias", top)
    return new


def _copy_bias(
    state: dict[str, Tensor], new: dict[str, Tensor], name: str, top: Tensor | None
) -> None:
    if name in state:
        new[name] = state[name] if top is None else state[name] @ top
