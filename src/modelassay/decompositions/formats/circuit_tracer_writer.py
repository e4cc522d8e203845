"""Write cross-layer transcoders in circuit-tracer's layout (see `circuit_tracer_cross_layer`)."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import OutputExistsError, ValueRangeError
from modelassay.core.files import write_atomically, write_tensors
from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.formats.assembly import calibrated
from modelassay.decompositions.formats.circuit_tracer import CONFIG_FILE, HOOKS
from modelassay.decompositions.formats.circuit_tracer_cross_layer import DECODERS, ENCODERS
from modelassay.decompositions.sparsifiers import (
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
)
from modelassay.subjects.site import Site

_PLAIN = re.compile(r"[\w./-]+")  # names that YAML reads as they stand


def write_circuit_tracer_cross_layer(
    transcoder: CrossLayerTranscoder,
    folder: str | Path,
    *,
    model_name: str | None = None,
    force: bool = False,
) -> None:
    """Write a folder of ``W_enc_i.safetensors``, ``W_dec_i.safetensors`` and ``config.yaml``.

    One layer is in memory at a time, also where the decoders were left in their files. BatchTopK
    becomes JumpReLU with its calibrated threshold for every latent.

    Args:
        transcoder: what to write.
        folder: made if absent.
        model_name: of the model that it belongs to.
        force: whether a transcoder that is there already may be replaced.

    Raises:
        OutputExistsError: if a transcoder is there already and `force` is False.
        ValueRangeError: if it has skip connections, layers of unequal width, another sparsifier, or
            sites that are not one hook of the layers from 0 on.
        StorageError: if the folder cannot be written.
    """
    folder = Path(folder)
    hooks = {
        "feature_input_hook": _hook(transcoder.reads, "reads"),
        "feature_output_hook": _hook(transcoder.writes, "writes"),
    }
    _check_sources(transcoder.sources)
    thresholds = [_threshold(source) for source in transcoder.sources]
    if model_name is not None and not _PLAIN.fullmatch(model_name):
        raise ValueRangeError(
            "A model's name must be letters, digits and any of . / _ - to stand in config.yaml; "
            f"got {model_name!r}. Give its Hugging Face id."
        )
    if (folder / CONFIG_FILE).exists() and not force:
        raise OutputExistsError(
            f"A circuit-tracer folder must be new; got {str(folder)!r} with a {CONFIG_FILE} in "
            "it. Pass force=True to replace it, or choose another place."
        )
    jumps = any(bool(threshold.any()) for threshold in thresholds)
    for i, (source, threshold) in enumerate(zip(transcoder.sources, thresholds, strict=True)):
        encoder = {
            f"W_enc_{i}": source.W_enc.t(),
            f"b_enc_{i}": source.b_enc,
            f"b_dec_{i}": transcoder.b_dec[i],
            # Every layer or none: the loader takes its sparsifier from the first one.
            **({f"threshold_{i}": threshold} if jumps else {}),
        }
        decoders = source.decoders.rows(torch.arange(source.width))
        write_tensors(folder / ENCODERS.format(i), encoder)
        write_tensors(folder / DECODERS.format(i), {f"W_dec_{i}": decoders})
    lines = {"model_name": model_name, "model_kind": "cross_layer_transcoder", **hooks}
    said = [f"{key}: {value}\n" for key, value in lines.items() if value is not None]
    write_atomically(folder / CONFIG_FILE, "".join(said))


def _hook(sites: Sequence[Site], what: str) -> str:
    """The one hook of all layers, as ``config.yaml`` names it."""
    hook = HOOKS.get(sites[0].role)
    if hook is None or list(sites) != [Site(sites[0].role, i) for i in range(len(sites))]:
        raise ValueRangeError(
            f"What a transcoder {what} must be one of {', '.join(HOOKS)} of every layer from 0 on "
            f"to have a form in circuit-tracer; got {', '.join(map(str, sites))}. Save it in our "
            "own format instead."
        )
    return hook


def _check_sources(sources: Sequence[Source]) -> None:
    for source in sources:
        if source.W_skip is not None:
            raise _refused("no skip connections", f"one from {source.reads}")
        if source.width != sources[0].width:
            raise _refused(
                "as many latents in every layer", f"{sources[0].width} and {source.width}"
            )


def _threshold(source: Source) -> Float[Tensor, " width"]:
    """What a pre-activation must exceed; 0 for a ReLU."""
    match source.activation:
        case ReLUActivation():
            return torch.zeros_like(source.b_enc)
        case JumpReLUActivation(threshold=threshold):
            return threshold.detach()
        case BatchTopKActivation(threshold=threshold):
            return torch.full_like(source.b_enc, calibrated(threshold))
        case _:
            raise _refused("relu, jumprelu or batchtopk in every layer", source.activation.kind)


def _refused(wanted: str, found: str) -> ValueRangeError:
    return ValueRangeError(
        f"A cross-layer transcoder must have {wanted} to have a form in circuit-tracer; got "
        f"{found}. Save it in our own format instead."
    )
