"""Write dictionaries as folders of saprmarks/dictionary_learning."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelassay.core.errors import OutputExistsError, ValueRangeError
from modelassay.core.files import write_atomically, write_json
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import (
    calibrated,
    encoder_bias,
    gated_biases,
    require_autoencoder,
)
from modelassay.decompositions.formats.dictionary_learning import (
    CONFIG_FILE,
    GATED,
    LAYOUTS,
    WEIGHTS_FILE,
)
from modelassay.decompositions.gated import GatedActivation
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)

_GATED_NAMES = {"b_gate": "gate_bias", "b_mag": "mag_bias", "r_mag": "r_mag"}


def write_dictionary_learning(
    dictionary: Dictionary,
    folder: str | Path,
    *,
    model_name: str | None = None,
    force: bool = False,
) -> None:
    """Write a folder that dictionary_learning's `load_dictionary` reads.

    ReLU becomes AutoEncoder or AutoEncoderNew, whichever has its bias; TopK AutoEncoderTopK,
    BatchTopK BatchTopKSAE, JumpReLU JumpReluAutoEncoder and gated GatedAutoEncoder, with the
    decoder's bias folded into the encoder's where the class has the other convention.

    Args:
        dictionary: an autoencoder.
        folder: made if absent.
        model_name: of the model that it belongs to.
        force: whether a dictionary that is there already may be replaced.

    Raises:
        ShapeError: if it is no autoencoder.
        ValueRangeError: if its sparsifier has no class there, its threshold is not calibrated, or
            a row of the decoder is zero where values are divided by its length.
        OutputExistsError: if a dictionary is there already and `force` is False.
        StorageError: if the folder cannot be written.
    """
    folder = Path(folder)
    if (folder / CONFIG_FILE).exists() and not force:
        raise OutputExistsError(
            f"A dictionary_learning folder must be new; got {str(folder)!r} with a {CONFIG_FILE} "
            "in it. Pass force=True to replace it, or choose another place."
        )
    require_autoencoder(dictionary)
    dict_class, scalars = _class_of(dictionary.activation, dictionary)
    layout = LAYOUTS[dict_class]
    b_enc = encoder_bias(dictionary, subtracts=layout.subtracts)
    W_enc, W_dec = dictionary.W_enc.detach().cpu(), dictionary.W_dec.detach().cpu()
    if layout.linear:
        weights = {"encoder.weight": W_enc.t(), "encoder.bias": b_enc, "decoder.weight": W_dec.t()}
        if isinstance(dictionary.activation, GatedActivation):
            biases = gated_biases(dictionary.activation, weights.pop("encoder.bias"))
            weights |= {_GATED_NAMES[name]: bias for name, bias in biases.items()}
    else:
        weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec}
    weights |= {layout.bias: dictionary.b_dec.detach()} | scalars
    buffer = io.BytesIO()
    torch.save({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, buffer)
    write_atomically(folder / WEIGHTS_FILE, buffer.getvalue())
    write_json(folder / CONFIG_FILE, _config(dictionary, dict_class, model_name))


def _class_of(activation: nn.Module, dictionary: Dictionary) -> tuple[str, dict[str, Tensor]]:
    """The class that does what the sparsifier does, and its further tensors."""
    match activation:
        case ReLUActivation():
            return ("AutoEncoder" if dictionary.apply_b_dec_to_input else "AutoEncoderNew"), {}
        case TopKActivation(k=k):
            return "AutoEncoderTopK", _scalars(k, -1.0)  # -1: no threshold was tracked
        case BatchTopKActivation(k=k, threshold=threshold):
            return "BatchTopKSAE", _scalars(k, max(calibrated(threshold), 0.0))
        case GatedActivation():
            return GATED, {}
        case JumpReLUActivation(threshold=threshold):
            silent = int((dictionary.W_dec.norm(dim=1) == 0).sum())
            if silent:
                raise ValueRangeError(
                    "Rows of W_dec must not be zero where values are divided by their norm; got "
                    f"{silent} of them. Save it in our own format instead."
                )
            return "JumpReluAutoEncoder", {"threshold": threshold.detach()}
        case _:
            raise ValueRangeError(
                "A sparsifier must be relu, topk, batchtopk, jumprelu or gated to have a class in "
                f"dictionary_learning; got {activation.kind}. Save it in our own format instead."
            )


def _scalars(k: int, threshold: float) -> dict[str, Tensor]:
    return {"k": torch.tensor(k, dtype=torch.int32), "threshold": torch.tensor(threshold)}


def _config(dictionary: Dictionary, dict_class: str, model_name: str | None) -> dict[str, Any]:
    site = dictionary.reads
    named = site is not None and not site.is_module_port
    trainer = {
        "trainer_class": LAYOUTS[dict_class].trainer,
        "dict_class": dict_class,
        "activation_dim": dictionary.d_in,
        "dict_size": dictionary.width,
        "layer": site.layer if site is not None and named else None,
        "lm_name": model_name,
        "submodule_name": f"{site.role}_layer_{site.layer}" if site is not None and named else None,
    }
    if isinstance(dictionary.activation, TopKActivation | BatchTopKActivation):
        trainer["k"] = dictionary.activation.k
    return {"trainer": trainer, "buffer": {"d_submodule": dictionary.d_in, "io": "out"}}
