"""Read dictionaries from folders of saprmarks/dictionary_learning.

A folder holds ``ae.pt``, a state dict, and ``config.json``. Classes in `nn.Linear`'s layout hold
``encoder.weight`` [width, d], ``encoder.bias`` [width], ``decoder.weight`` [d, width] and a bias
[d] whose name differs; the others ``W_enc`` [d, width], ``b_enc``, ``W_dec`` [width, d], ``b_dec``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import assemble
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_config_file,
    read_state_dict,
    refusal,
    whole_number,
)
from modelassay.decompositions.gated import GatedActivation
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.subjects.site import Site

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "ae.pt"
_KIND = "dictionary_learning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a class stores its weights and what it does with them."""

    linear: bool
    """Whether the matrices are `nn.Linear`'s, transposed."""
    bias: str
    """Name of the decoder's bias."""
    subtracts: bool
    """Whether the bias is subtracted before encoding."""
    trainer: str
    """Class that trains it."""


LAYOUTS = {
    "AutoEncoder": Layout(linear=True, bias="bias", subtracts=True, trainer="StandardTrainer"),
    "AutoEncoderNew": Layout(
        linear=True, bias="decoder.bias", subtracts=False, trainer="StandardTrainerAprilUpdate"
    ),
    "AutoEncoderTopK": Layout(linear=True, bias="b_dec", subtracts=True, trainer="TopKTrainer"),
    "BatchTopKSAE": Layout(linear=True, bias="b_dec", subtracts=True, trainer="BatchTopKTrainer"),
    "MatryoshkaBatchTopKSAE": Layout(
        linear=False, bias="b_dec", subtracts=True, trainer="MatryoshkaBatchTopKTrainer"
    ),
    "JumpReluAutoEncoder": Layout(
        linear=False, bias="b_dec", subtracts=False, trainer="JumpReluTrainer"
    ),
    "GatedAutoEncoder": Layout(
        linear=True, bias="decoder_bias", subtracts=True, trainer="GatedSAETrainer"
    ),
}
GATED = "GatedAutoEncoder"
_GATED_BIASES = ("r_mag", "gate_bias", "mag_bias")
_TOPK = ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
_UNIT_ROWS = ("AutoEncoder", "JumpReluAutoEncoder")

# The names that the library's training script gives; others are not guessed.
_SUBMODULE = re.compile(r"(resid_post|mlp_out|attn_out)_layer_(\d+)")


def read_dictionary_learning(folder: str | Path, *, site: Site | None = None) -> Dictionary:
    """Read a folder with ``ae.pt`` and ``config.json``.

    Classes: AutoEncoder, AutoEncoderNew, AutoEncoderTopK (its k largest, as its own forward does,
    not its threshold), BatchTopKSAE and MatryoshkaBatchTopKSAE (their threshold),
    JumpReluAutoEncoder. Decoder norms are folded for AutoEncoder, as the library's own loader
    does (the April trainer leaves them free), and for JumpReluAutoEncoder, as its newer versions
    do when they encode (its trainer keeps them at 1). GatedAutoEncoder's gate is the
    pre-activation (`GatedActivation`).

    Args:
        folder: one trainer's folder.
        site: where the dictionary belongs; None reads ``submodule_name``, where it has the form
            ``resid_post_layer_3``.

    Raises:
        CorruptFileError: if a file or tensor is missing or damaged, or is a foreign pickle.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if the config says what this reader does not understand.
    """
    folder = Path(folder)
    config_path, path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    config = read_config_file(config_path, _KIND)
    trainer = _trainer(config, config_path)
    dict_class = trainer["dict_class"]
    layout = LAYOUTS[dict_class]
    d, width = (whole_number(trainer, key, config_path) for key in ("activation_dim", "dict_size"))
    state = read_state_dict(path, _KIND)
    _refuse_backup(state, path)
    groups = list(state["group_sizes"].shape) if "group_sizes" in state else [1]
    weights = check_tensors(
        state,
        _shapes(dict_class, d, width, groups),
        path,
        # Early versions kept k in the config alone.
        optional=("k", "threshold") if dict_class == "AutoEncoderTopK" else (),
    )
    W_enc, b_enc, W_dec = _matrices(layout, weights)
    dictionary = assemble(
        W_enc,
        b_enc,
        W_dec,
        weights[layout.bias],
        _activation(trainer, weights, config_path, path),
        subtracts=layout.subtracts,
        reads=_site(config) if site is None else site,
    )
    if dict_class in _UNIT_ROWS:
        dictionary.fold_decoder_norms()
    return dictionary


def _trainer(config: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The part of the config that describes the dictionary."""
    trainer = config.get("trainer")
    if not isinstance(trainer, Mapping):
        raise CorruptFileError(
            f"{str(path)!r} must have the key 'trainer' with the dictionary's settings; got "
            f"{', '.join(config) or 'nothing'}. Fetch the folder again."
        )
    dict_class = trainer.get("dict_class")
    if dict_class not in LAYOUTS:
        raise refusal(path, "trainer.dict_class", dict_class, f"one of {', '.join(LAYOUTS)}")
    return trainer


def _refuse_backup(state: Mapping[str, Any], path: Path) -> None:
    """Backups of a running training stand under the same name, and leave the scale unfolded."""
    if "ae" in state and "optimizer" in state:
        raise CorruptFileError(
            f"{str(path)!r} must be a finished dictionary's state dict; got the backup of a "
            f"training at step {state.get('step')}, whose scale is not folded. Take the file of "
            "the finished run or one of its checkpoints/."
        )


def _shapes(dict_class: str, d: int, width: int, groups: list[int]) -> dict[str, list[int]]:
    layout = LAYOUTS[dict_class]
    if layout.linear:
        shapes = {
            "encoder.weight": [width, d],
            "encoder.bias": [width],
            "decoder.weight": [d, width],
            layout.bias: [d],
        }
    else:
        shapes = {"W_enc": [d, width], "b_enc": [width], "W_dec": [width, d], "b_dec": [d]}
    if dict_class in _TOPK:
        shapes |= {"k": [], "threshold": []}
    if dict_class == "MatryoshkaBatchTopKSAE":
        shapes["group_sizes"] = groups
    if dict_class == "JumpReluAutoEncoder":
        shapes["threshold"] = [width]
    if dict_class == GATED:
        del shapes["encoder.bias"]
        shapes |= {name: [width] for name in _GATED_BIASES}
    return shapes


def _matrices(layout: Layout, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    if layout.linear:
        encoder, decoder = weights["encoder.weight"], weights["decoder.weight"]
        bias = weights["encoder.bias"] if "encoder.bias" in weights else weights["gate_bias"]
        return encoder.t(), bias, decoder.t()
    return weights["W_enc"], weights["b_enc"], weights["W_dec"]


def _activation(
    trainer: Mapping[str, Any], weights: Mapping[str, Tensor], config_path: Path, path: Path
) -> Sparsifier:
    match trainer["dict_class"]:
        case "AutoEncoder" | "AutoEncoderNew":
            return ReLUActivation()
        case "JumpReluAutoEncoder":
            return JumpReLUActivation(weights["threshold"])
        case "GatedAutoEncoder":
            gain = weights["r_mag"]
            return GatedActivation(gain, weights["mag_bias"] - gain.exp() * weights["gate_bias"])
        case "AutoEncoderTopK":
            return TopKActivation(_k(trainer, weights, config_path, path))
        case _:
            threshold = float(weights["threshold"])
            if threshold < 0:  # -1 until the training has begun to track it
                raise ValueRangeError(
                    f"{str(path)!r}: threshold must be at least 0, as a finished training leaves "
                    f"it; got {threshold:g}. Take a later checkpoint."
                )
            return BatchTopKActivation(_k(trainer, weights, config_path, path), threshold)


def _k(
    trainer: Mapping[str, Any], weights: Mapping[str, Tensor], config_path: Path, path: Path
) -> int:
    k = whole_number(trainer, "k", config_path)
    if "k" in weights and int(weights["k"]) != k:
        raise ValueRangeError(
            f"{str(path)!r}: k must be {k}, as {config_path.name} says; got {int(weights['k'])}. "
            "Take both files from the same training."
        )
    return k


def _site(config: Mapping[str, Any]) -> Site | None:
    """The site that the submodule's name gives; None if it says something else."""
    found = _SUBMODULE.fullmatch(str(config["trainer"].get("submodule_name")))
    buffer = config.get("buffer")
    side = buffer.get("io", "out") if isinstance(buffer, Mapping) else "out"
    if found is None or side != "out":
        return None
    return Site(role=found[1], layer=int(found[2]))
