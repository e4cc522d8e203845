"""`load_subject`: a verified subject from an id, a folder or a module."""

import itertools
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig
from transformers.utils import logging

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    UnknownNameError,
    UnsupportedModelError,
)
from modelassay.subjects.hooks import Flags, first_tensor
from modelassay.subjects.resolution import resolve_structure
from modelassay.subjects.structure import is_language_model, refusal
from modelassay.subjects.subject import Subject
from modelassay.subjects.verify import sample_tokens, verify

BUNDLED = Path(__file__).parent / "bundled" / "python_llama"
"""Folder of the language model that comes with this package."""

_DEFAULT_CONTEXT_TOKENS = 2048  # ours, for models that state no limit


def load_subject(
    source: str | Path | nn.Module,
    *,
    tokenizer: Any | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    roles: bool = True,
) -> Subject:
    """Load a model and verify its structure.

    A model that you pass as an object is used as it is: it keeps its device, dtype, flags and
    attention implementation, and shares its weights with the subject. Weights that are loaded
    here are frozen, so gradients flow to activations only.

    Args:
        source: "bundled", a folder, a Hugging Face id, a causal language model, or any module.
        tokenizer: the tokenizer to use instead of the one beside the weights.
        device: where to put weights that are loaded here.
        dtype: of weights that are loaded here.
        revision: branch, tag or commit of a Hugging Face id.
        roles: resolve and verify the roles of a language model; without, it has module ports only.

    Raises:
        UnknownNameError: no such folder, and no model with such an id could be fetched.
        UnsupportedModelError: the model's structure could not be verified.
        CorruptFileError: the weights are damaged, or do not fit the configuration.
    """
    if isinstance(source, nn.Module):
        return verified_subject(type(source).__name__, source, tokenizer, roles=roles)
    folder = BUNDLED if source == "bundled" else Path(source).expanduser()
    local = folder.is_dir()
    if not local and _looks_like_a_path(source):
        raise UnknownNameError("Model folder", str(source), _known_models(folder.parent))
    origin = str(folder) if local else str(source)
    if local and not (folder / "config.json").is_file():
        raise UnknownNameError("Model folder", f"{source} (no config.json)", _known_models(folder))
    module = _load_weights(origin, local, dtype, revision)
    if tokenizer is None:
        tokenizer = _load_tokenizer(origin, local, revision)
    name = "bundled" if source == "bundled" else folder.resolve().name if local else origin
    module = module.to(device).requires_grad_(False).eval()
    return verified_subject(name, module, tokenizer, roles=roles)


def verified_subject(
    name: str,
    module: nn.Module,
    tokenizer: Any | None,
    *,
    roles: bool = True,
    context_tokens: int | None = None,
) -> Subject:
    """A subject whose roles, if it is a language model, are resolved and verified.

    Raises:
        UnsupportedModelError: the model's structure could not be verified.
    """
    structure = None
    context_tokens = context_tokens or _context_tokens(module)
    if roles and is_language_model(module):
        head: Any = module.get_output_embeddings()  # pyright: ignore[reportCallIssue]
        tokens = sample_tokens(head.weight.shape[0], context_tokens, seed=0)
        tokens = tokens.to(head.weight.device)
        with Flags.of(module).evaluating():
            structure = resolve_structure(module, lambda: _try(module, tokens))
    subject = Subject(
        name=name,
        module=module,
        tokenizer=tokenizer,
        structure=structure,
        context_tokens=context_tokens,
    )
    if structure is not None:
        verify(subject)
    return subject


def _try(module: nn.Module, tokens: Tensor) -> None:
    try:
        logits = first_tensor(module(tokens))
    except (ValueError, RuntimeError, TypeError) as error:
        raise refusal(
            module, f"A language model must run on token ids [batch token]; got: {error}."
        ) from error
    if logits is not None and not bool(logits.isfinite().all()):
        raise NonFiniteError(
            "A model's logits must be finite; got NaN or Inf on random tokens. "
            "Check the weights, and that their dtype can hold them."
        )


def _load_weights(origin: str, local: bool, dtype: torch.dtype, revision: str | None) -> nn.Module:
    options: dict[str, Any] = {"local_files_only": True} if local else {"revision": revision}
    try:
        # A download shows its progress; reading a folder has nothing to show.
        with _without_progress() if local else nullcontext():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                origin,
                dtype=dtype,
                attn_implementation="eager",
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **options,
            )
    except SafetensorError as error:
        raise CorruptFileError(
            f"Weights must be whole safetensors files; got damage in {origin!r} ({error}). "
            "Fetch the model again."
        ) from error
    except OSError as error:
        raise _not_loadable(origin, local, error) from error
    except ValueError as error:
        raise UnsupportedModelError(
            f"A model must be a causal language model that transformers knows; got {origin!r} "
            f"({str(error).splitlines()[0]}). Build it yourself and pass the module."
        ) from error
    module, info = loaded
    # transformers fills gaps with random weights and only warns.
    absent = [*sorted(info["missing_keys"]), *(key for key, *_ in info["mismatched_keys"])]
    if absent:
        raise CorruptFileError(
            f"Weights must hold every parameter of the configuration; got {origin!r}, where "
            f"{len(absent)} are missing or mis-shaped, such as {absent[0]!r}. Fetch it again."
        )
    return module


@contextmanager
def _without_progress() -> Generator[None, None, None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load_tokenizer(origin: str, local: bool, revision: str | None) -> Any | None:
    if local:
        names = {path.name for path in Path(origin).iterdir()}
        if not names & {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt"}:
            return None
        return AutoTokenizer.from_pretrained(origin, local_files_only=True)
    try:
        return AutoTokenizer.from_pretrained(origin, revision=revision)
    except OSError:
        return None


def _context_tokens(module: nn.Module) -> int:
    config: Any = getattr(module, "config", None)
    config = config.get_text_config() if isinstance(config, PretrainedConfig) else config
    return getattr(config, "max_position_embeddings", None) or _DEFAULT_CONTEXT_TOKENS


def _looks_like_a_path(source: str | Path) -> bool:
    if isinstance(source, Path):
        return True
    return source.startswith((".", "/", "~")) or source.count("/") > 1


def _known_models(*folders: Path) -> list[str]:
    """Names that would have worked: "bundled", and model folders in some folders."""
    present = itertools.chain.from_iterable(f.iterdir() for f in folders if f.is_dir())
    return ["bundled", *sorted(str(p) for p in present if (p / "config.json").is_file())]


def _not_loadable(origin: str, local: bool, error: OSError) -> Exception:
    if local:
        return CorruptFileError(
            f"A model folder must hold a readable configuration and weights; got {origin!r} "
            f"({str(error).splitlines()[0]}). Fetch the model again."
        )
    unknown = UnknownNameError("Model", origin, _known_models(Path.cwd()))
    unknown.message += (
        " It is no folder here, and Hugging Face has no model of this name or cannot be reached: "
        f"{str(error).splitlines()[0]}"
    )
    return unknown
