"""Null twins: models that share a subject's architecture and nothing of what it learned.

What a method also finds in a null twin was not learned by the subject.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modelassay.core.errors import UnknownNameError
from modelassay.subjects.subject import Subject

KINDS = ("reinitialised", "permuted")


def null_twin(
    subject: Subject, kind: str, *, keep_embeddings: bool, generator: torch.Generator
) -> Subject:
    """A copy of a subject with other weights; the subject itself is left alone.

    Args:
        subject: the model to copy.
        kind: "reinitialised" draws the weights anew, as the architecture does before training;
            "permuted" shuffles the entries of each weight tensor, which keeps their distribution.
        keep_embeddings: keep the token and position embeddings and the unembedding.
        generator: decides all draws.

    Raises:
        UnknownNameError: the kind is unknown.
    """
    if kind == "reinitialised":
        module = _reinitialised(subject.module, generator)
    elif kind == "permuted":
        module = _permuted(subject.module, generator)
    else:
        raise UnknownNameError("Kind of null twin", kind, KINDS)
    if keep_embeddings:
        for path in _embedding_paths(subject):
            original = subject.module.get_submodule(path).state_dict()
            module.get_submodule(path).load_state_dict(original)
    for twin, original in zip(module.parameters(), subject.module.parameters(), strict=True):
        twin.requires_grad_(original.requires_grad)
    kept = ", embeddings kept" if keep_embeddings else ""
    return Subject(
        name=f"{subject.name} ({kind}{kept})",
        module=module.eval(),
        tokenizer=subject.tokenizer,
        structure=subject.structure,
        context_tokens=subject.context_tokens,
    )


def _reinitialised(module: nn.Module, generator: torch.Generator) -> nn.Module:
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # Initialisers draw from the global generator: lend it a state, and give back its own.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if isinstance(module, PreTrainedModel):
            build: Any = type(module)
            twin = build(copy.deepcopy(module.config))
        else:
            twin = copy.deepcopy(module).cpu()
            for part in twin.modules():
                _reset(part)
    example = next(module.parameters())
    return twin.to(device=example.device, dtype=example.dtype)


def _reset(part: nn.Module) -> None:
    """Draw a module's own parameters as its class does, or from a normal of equal moments."""
    reset = getattr(part, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in part.parameters(recurse=False):
        deviation = parameter.std(correction=0)
        parameter.copy_(torch.randn_like(parameter) * deviation + parameter.mean())


def _permuted(module: nn.Module, generator: torch.Generator) -> nn.Module:
    twin = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(_shuffled(parameter, generator))
    return twin


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator, device=generator.device)
    return tensor.flatten()[order.to(tensor.device)].view_as(tensor)


def _embedding_paths(subject: Subject) -> list[str]:
    """Embeddings outside the blocks, and the unembedding."""
    structure, module = subject.structure, subject.module
    head = subject.unembedding_module
    return [
        path
        for path, part in module.named_modules()
        if part is head
        or (
            isinstance(part, nn.Embedding)
            and (structure is None or structure.layer_of(path) is None)
        )
    ]
