"""More SwiGLU neurons in the blocks of a Llama."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaForCausalLM


@dataclass(frozen=True, kw_only=True, eq=False)
class NeuronRows:
    """Neurons of one block: each adds ``silu(gate . y) (up . y) down`` for its normed input y."""

    gate: Float[Tensor, "neuron wide"]
    up: Float[Tensor, "neuron wide"]
    down: Float[Tensor, "neuron wide"]


@torch.no_grad()
def with_neurons(module: LlamaForCausalLM, added: Mapping[int, NeuronRows]) -> LlamaForCausalLM:
    """A copy of a model whose blocks have some more neurons.

    A Llama has one width of MLP for all its blocks: those that get fewer get silent ones, whose
    weights are all 0.

    Args:
        module: is left alone.
        added: block -> its new neurons.
    """
    extra = max(len(rows.gate) for rows in added.values())
    twin = copy.deepcopy(module)
    twin.config.intermediate_size += extra
    for layer, block in enumerate(twin.model.layers):
        mlp: Any = block.mlp
        mlp.intermediate_size += extra
        rows = added.get(layer)
        for name, axis in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1)):
            linear = getattr(mlp, name)
            new = linear.weight.new_zeros(extra, module.config.hidden_size)
            if rows is not None:
                given = getattr(rows, name.removesuffix("_proj"))
                new[: len(given)] = given.to(new)
            pieces = [linear.weight, new if axis == 0 else new.T]
            # Contiguous, as a loaded matrix is: layout decides the order of a sum, and the bits.
            linear.weight = torch.nn.Parameter(
                torch.cat(pieces, dim=axis).contiguous(), requires_grad=False
            )
            linear.out_features, linear.in_features = linear.weight.shape
            if linear.bias is not None and axis == 0:
                padded = torch.nn.functional.pad(linear.bias, (0, extra))
                linear.bias = torch.nn.Parameter(padded, requires_grad=False)
    return twin
