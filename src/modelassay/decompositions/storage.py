"""Read decompositions that `Decomposition.save` wrote."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelassay.core.errors import CorruptFileError, UnknownNameError
from modelassay.decompositions import recipes, residual_pursuit, sparsifiers
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.dictionary import RECIPES, WEIGHTS, Dictionary, Recipe
from modelassay.decompositions.folder import Saved, naming_what_is_missing, read_folder
from modelassay.decompositions.inference_time import BASE, Pursuit
from modelassay.decompositions.linear import PCA, Neurons
from modelassay.decompositions.local_interaction import LocalInteractionBasis
from modelassay.decompositions.sparsifier import Sparsifier, read_sparsifier
from modelassay.decompositions.transcoder import SkipTranscoder

# The library's own recipes and sparsifiers register themselves when they are imported.
_REGISTERED = (recipes, residual_pursuit, sparsifiers)


def load_decomposition(directory: str | Path) -> Decomposition:
    """The decomposition in a folder that `Decomposition.save` wrote, on the CPU.

    Raises:
        CorruptFileError: if the folder is incomplete, damaged or of a later version.
        UnknownNameError: if it holds a kind that this version does not know.
    """
    saved = read_folder(directory)
    with naming_what_is_missing(directory, saved.kind):
        return _read(saved)


def _read(saved: Saved) -> Decomposition:
    if saved.kind not in _READERS:
        raise UnknownNameError("A decomposition's kind", saved.kind, _READERS)
    decomposition = _READERS[saved.kind](saved)
    decomposition.subject_fingerprint = saved.subject_fingerprint
    decomposition.provenance = saved.provenance
    return decomposition


def _read_dictionary(saved: Saved) -> Dictionary:
    tensors, config = saved.tensors, saved.config
    return Dictionary(
        W_enc=tensors["W_enc"],
        b_enc=tensors["b_enc"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        activation=_read_activation(saved),
        reads=saved.reads,
        writes=saved.writes,
        apply_b_dec_to_input=config["apply_b_dec_to_input"],
        frozen_decoder=config["frozen_decoder"],
        recipe=_read_recipe(config["recipe"]),
        name=saved.name,
        references=saved.references,
    )


def _read_skip_transcoder(saved: Saved) -> SkipTranscoder:
    tensors = dict(saved.tensors)
    W_skip = tensors.pop("W_skip")
    dictionary = _read_dictionary(replace(saved, tensors=tensors))
    return SkipTranscoder.around(dictionary, W_skip, name=saved.name)


def _read_activation(saved: Saved) -> Sparsifier:
    settings = dict(saved.config["activation"])
    own = {name: tensor for name, tensor in saved.tensors.items() if name not in WEIGHTS}
    return read_sparsifier(settings.pop("kind"), settings, own)


def _read_recipe(config: Mapping[str, Any] | None) -> Recipe | None:
    if config is None:
        return None
    if config["kind"] not in RECIPES:
        raise UnknownNameError("A recipe's kind", config["kind"], RECIPES)
    fields = {name: _read_field(value) for name, value in config.items()}
    kind: str = fields.pop("kind")
    try:
        return RECIPES[kind](**fields)
    except TypeError as error:
        raise CorruptFileError(
            f"The recipe {kind} of a dictionary must have its own fields; got {sorted(fields)}: "
            f"{error}. Use the release of modelassay that wrote it, or make it again."
        ) from error


def _read_field(value: Any) -> Any:
    """A recipe's field: JSON has lists for tuples, and a recipe may hold another."""
    if isinstance(value, list):
        return tuple(value)
    return _read_recipe(value) if isinstance(value, dict) else value


def _read_neurons(saved: Saved) -> Neurons:
    return Neurons(saved.config["d"], saved.reads)


def _read_pca(saved: Saved) -> PCA:
    tensors = saved.tensors
    return PCA(
        tensors["mean"],
        tensors["components"],
        tensors["variances"],
        k=saved.config["k"],
        site=saved.reads,
    )


def _read_local_interaction(saved: Saved) -> LocalInteractionBasis:
    tensors = saved.tensors
    return LocalInteractionBasis(
        tensors["mean"],
        tensors["covectors"],
        tensors["directions"],
        tensors["used_variance"],
        threshold=saved.config["threshold"],
        site=saved.reads,
    )


def _read_pursuit(saved: Saved) -> Pursuit:
    config, base = saved.config, saved.config["base"]
    inner = replace(
        saved,
        kind=base["kind"],
        name=base["name"],
        references=tuple(base["references"]),
        config=base["config"],
        tensors={
            name.removeprefix(BASE): tensor
            for name, tensor in saved.tensors.items()
            if name.startswith(BASE)
        },
    )
    return Pursuit(
        _read(inner), k=config["k"], method=config["method"], non_negative=config["non_negative"]
    )


_READERS: dict[str, Callable[[Saved], Decomposition]] = {
    "dictionary": _read_dictionary,
    "local_interaction": _read_local_interaction,
    "neurons": _read_neurons,
    "pca": _read_pca,
    "pursuit": _read_pursuit,
    "skip_transcoder": _read_skip_transcoder,
}
