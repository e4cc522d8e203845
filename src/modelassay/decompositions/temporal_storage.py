"""Read temporal dictionaries that `TemporalDictionary.save` wrote."""

from pathlib import Path

from modelassay.core.errors import CorruptFileError
from modelassay.decompositions import sparsifiers
from modelassay.decompositions.folder import Saved, naming_what_is_missing, read_folder
from modelassay.decompositions.sparsifier import read_sparsifier
from modelassay.decompositions.temporal import KIND, TemporalDictionary

_ACTIVATION = "activation."
_REGISTERED = sparsifiers  # the library's own register themselves when they are imported


def load_temporal(directory: str | Path) -> TemporalDictionary:
    """The temporal dictionary in a folder that `TemporalDictionary.save` wrote, on the CPU.

    Raises:
        CorruptFileError: if the folder is incomplete, damaged or holds something else.
        UnknownNameError: if the sparsifier's kind is not registered.
    """
    saved = read_folder(directory)
    if saved.kind != KIND:
        raise CorruptFileError(
            f"{str(directory)!r} must hold a {KIND}; got a {saved.kind}. "
            "Read it with load_decomposition."
        )
    with naming_what_is_missing(directory, KIND):
        return _read(saved)


def _read(saved: Saved) -> TemporalDictionary:
    config, tensors = saved.config, saved.tensors
    settings = dict(config["activation"])
    own = {
        name.removeprefix(_ACTIVATION): tensor
        for name, tensor in tensors.items()
        if name.startswith(_ACTIVATION)
    }
    dictionary = TemporalDictionary(
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        W_enc=tensors.get("W_enc"),
        activation=read_sparsifier(settings.pop("kind"), settings, own),
        layers=config["layers"],
        heads=config["heads"],
        bottleneck=config["bottleneck"],
        input_scale=config["input_scale"],
        site=saved.reads,
        name=saved.name,
    )
    dictionary.load_state_dict({name: tensors[name] for name in dictionary.state_dict()})
    dictionary.subject_fingerprint = saved.subject_fingerprint
    dictionary.provenance = saved.provenance
    return dictionary
