"""Write and read temporal dictionaries, in folders like those of decompositions."""

from pathlib import Path

from modelassay.core.errors import CorruptFileError
from modelassay.decompositions import sparsifiers
from modelassay.decompositions.folder import Saved, read_folder, write_folder
from modelassay.decompositions.sparsifier import read_sparsifier
from modelassay.decompositions.temporal import TemporalDictionary

_KIND = "temporal_dictionary"
_ACTIVATION = "activation."
_REGISTERED = sparsifiers  # the library's own register themselves when they are imported


def save_temporal(
    dictionary: TemporalDictionary, directory: str | Path, *, force: bool = False
) -> None:
    """Write a folder that `load_temporal` reads.

    Args:
        dictionary: what to write.
        directory: made if absent.
        force: whether a decomposition that is there already may be replaced.

    Raises:
        OutputExistsError: if one is there already and `force` is False.
        StorageError: if the folder cannot be written.
    """
    activation = dictionary.activation
    saved = Saved(
        kind=_KIND,
        name=dictionary.name,
        reads=dictionary.reads,
        writes=dictionary.writes,
        references=dictionary.references,
        subject_fingerprint=dictionary.subject_fingerprint,
        provenance=dictionary.provenance,
        config={
            "activation": {"kind": activation.kind, **activation.settings()},
            "layers": len(dictionary.attn_layers),
            "heads": dictionary.heads,
            "bottleneck": dictionary.bottleneck,
            "input_scale": dictionary.input_scale,
        },
        tensors={
            name: tensor.detach().contiguous() for name, tensor in dictionary.state_dict().items()
        },
    )
    write_folder(saved, directory, force=force)


def load_temporal(directory: str | Path) -> TemporalDictionary:
    """The temporal dictionary in a folder that `save_temporal` wrote, on the CPU.

    Raises:
        CorruptFileError: if the folder is incomplete, damaged or holds something else.
        UnknownNameError: if the sparsifier's kind is not registered.
    """
    saved = read_folder(directory)
    if saved.kind != _KIND:
        raise CorruptFileError(
            f"{str(directory)!r} must hold a {_KIND}; got a {saved.kind}. "
            "Read it with load_decomposition."
        )
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
    dictionary.load_state_dict(tensors)
    dictionary.subject_fingerprint = saved.subject_fingerprint
    dictionary.provenance = saved.provenance
    return dictionary
