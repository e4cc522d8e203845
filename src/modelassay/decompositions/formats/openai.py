"""Read dictionaries of openai/sparse_autoencoder.

A file is a state dict: ``pre_bias`` [d], ``encoder.weight`` [width, d], ``latent_bias`` [width],
``decoder.weight`` [d, width], statistics of the training, the name of the ``activation`` and its
``activation_state_dict``. Dictionaries with TopK normalise every token to mean 0 and deviation 1
before encoding and undo it afterwards.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelassay.core.errors import CorruptFileError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_state_dict,
    refusal,
    sizes_of,
    whole_number,
)
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import ReLUActivation, TopKActivation
from modelassay.subjects.site import Site

_KIND = "openai/sparse_autoencoder"
_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def read_openai(
    path: str | Path, *, site: Site | None = None, normalised: bool = False
) -> Dictionary:
    """Read a ``.pt`` file.

    Args:
        path: the file.
        site: where the dictionary belongs, which the file does not say.
        normalised: the caller normalises every token as the library does, by
            ``(x - mean) / (deviation + 1e-5)``, the deviation with n - 1. Without it TopK files
            are refused: their reconstructions are no sum of fixed directions and one bias.

    Raises:
        CorruptFileError: if the file is missing, truncated, a foreign pickle or lacks a tensor.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if its activation is not understood, or normalises and `normalised` is
            False.
    """
    path = Path(path)
    state = read_state_dict(path, _KIND)
    activation = _activation(state, path, normalised=normalised)
    named = ("activation", "activation_state_dict")
    stored = {name: value for name, value in state.items() if name not in named}
    d, width = sizes_of(stored, path, inputs="pre_bias", latents="latent_bias")
    wanted = {
        "pre_bias": [d],
        "encoder.weight": [width, d],
        "latent_bias": [width],
        "decoder.weight": [d, width],
        **{name: [width] for name in _STATISTICS},
    }
    weights = check_tensors(stored, wanted, path, optional=_STATISTICS)
    return assemble(
        weights["encoder.weight"].t(),
        weights["latent_bias"],
        weights["decoder.weight"].t(),
        weights["pre_bias"],
        activation,
        subtracts=True,
        reads=site,
    )


def _activation(state: Mapping[str, Any], path: Path, *, normalised: bool) -> Sparsifier:
    name = state.get("activation", "ReLU")
    if name == "ReLU":
        return ReLUActivation()
    if name != "TopK":
        raise refusal(path, "activation", name, "ReLU or TopK")
    settings = state.get("activation_state_dict")
    if not isinstance(settings, Mapping):
        raise CorruptFileError(
            f"{str(path)!r}: activation_state_dict must hold TopK's k; got {settings!r}. "
            "Fetch the file again."
        )
    if settings.get("postact_fn") != "ReLU":
        raise refusal(path, "postact_fn", settings.get("postact_fn"), "ReLU")
    if not normalised:
        raise refusal(
            path, "activation", name,
            "ReLU: with TopK every token is normalised on its own, which no dictionary with one "
            "bias can express. Pass normalised=True to read it as one of normalised tokens",
        )  # fmt: skip
    return TopKActivation(whole_number(settings, "k", path))
