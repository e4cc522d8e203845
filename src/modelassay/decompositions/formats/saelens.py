"""Read and write dictionaries as SAELens folders.

A folder holds ``cfg.json``, ``sae_weights.safetensors`` and, if firing rates are known,
``sparsity.safetensors``. Tensors: ``W_enc`` [d_in, d_sae], ``b_enc`` [d_sae], ``W_dec`` [d_sae,
d_in], ``b_dec`` [d_in]; ``threshold`` [d_sae] for jumprelu, ``topk_threshold`` [] in checkpoints
of batchtopk. What SAELens applies at run time (scaled inputs, choice by decoder norm, factors per
latent) is folded into the weights, so that reconstructions are the same.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import (
    OutputExistsError,
    ValueRangeError,
)
from modelassay.core.files import write_json, write_tensors
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.assembly import (
    gated_biases,
    require_autoencoder,
    require_both_sites,
)
from modelassay.decompositions.formats.hook_names import hook_of_site, site_of_hook
from modelassay.decompositions.formats.saelens_config import (
    CONFIG_FILE,
    SaeLensConfig,
    read_config,
)
from modelassay.decompositions.formats.saelens_pursuit import pursuit_config
from modelassay.decompositions.formats.saelens_weights import (
    WEIGHTS_FILE,
    activation_of,
    read_weights,
)
from modelassay.decompositions.gated import GatedActivation
from modelassay.decompositions.matching_pursuit import MatchingPursuitActivation
from modelassay.decompositions.residual_pursuit import ResidualPursuitActivation
from modelassay.decompositions.sparsifiers import (
    AbsTopKActivation,
    BatchTopKActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

SPARSITY_FILE = "sparsity.safetensors"

_ARCHITECTURES = {
    "relu": "standard",
    "topk": "topk",
    "batchtopk": "batchtopk",
    "abstopk": "abstopk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "matching_pursuit": "matching_pursuit",
    "residual_matching_pursuit": "matching_pursuit",
}
# Tensors of ours that an architecture does not store.
_IMPLIED = {"gated": ("b_enc",), "matching_pursuit": ("W_enc", "b_enc")}
_REFERENCES = {
    "standard": ("bricken2023",),
    "topk": ("gao2024",),
    "batchtopk": ("bussmann2024",),
    "abstopk": ("zhu2025",),
    "matryoshka_batchtopk": ("bussmann2025",),
    "jumprelu": ("rajamanoharan2024jumprelu",),
    "gated": ("rajamanoharan2024gated",),
    "matching_pursuit": ("costa2025", "mallat1993"),
}


def read_saelens(
    folder: str | Path,
    *,
    site: Site | None = None,
    writes: Site | None = None,
    centred: bool | None = None,
) -> Dictionary:
    """Read a SAELens folder of any version.

    Architectures: standard, topk, batchtopk, abstopk, jumprelu, gated and matching_pursuit.

    Exports and checkpoints both: of Matryoshka trainings too, whose nesting acts only in training,
    and transcoders, with a skip connection or without, which are standard or jumprelu. Gated ones
    become a `GatedActivation`, whose gate is the pre-activation. Half-precision weights become
    float32. Latent values are in units of the decoder's rows as this function returns them, which
    for scaled inputs are not SAELens' units.

    Args:
        folder: holds ``cfg.json`` and ``sae_weights.safetensors``.
        site: where the dictionary belongs; None reads the hook's name.
        writes: what a transcoder's reconstructions stand for; None reads the hook's name.
        centred: whether the residual stream that it was fitted on had its mean over the width
            subtracted, as TransformerLens does with ``center_writing_weights``. That is then done
            by the encoder. None believes the config, which in old folders may be silent.

    Raises:
        CorruptFileError: if a file is missing or truncated, or a tensor is missing.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if the config says what this reader does not understand.
    """
    folder = Path(folder)
    config = read_config(folder)
    reads, writes = _sites(config, site, writes, folder)
    weights = read_weights(folder, config)
    W_enc, b_enc, W_dec, b_dec = (weights[k] for k in ("W_enc", "b_enc", "W_dec", "b_dec"))
    if config.finetuned_scale:
        W_dec = W_dec * weights["scaling_factor"].unsqueeze(1)
    if config.rescale_by_decoder_norm:
        norms = W_dec.norm(dim=1)
        if not bool((norms > 0).all()):
            raise ValueRangeError(
                f"{str(folder / WEIGHTS_FILE)!r}: rows of W_dec must not be zero where values "
                f"are divided by their norm; got {int((norms == 0).sum())} of them. "
                "Export the dictionary again."
            )
        W_enc, b_enc, W_dec = W_enc * norms, b_enc * norms, W_dec / norms.unsqueeze(1)
    if config.centred if centred is None else centred:
        W_enc, b_enc = _centring_encoder(W_enc, b_enc, b_dec, config)
    dictionary = Dictionary(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        activation=activation_of(config, weights),
        reads=reads,
        writes=writes,
        apply_b_dec_to_input=config.apply_b_dec_to_input,
        references=_references(config),
    )
    if config.input_scale != 1:
        dictionary.fold_input_scale(config.input_scale)
    return SkipTranscoder.around(dictionary, weights["W_skip"].t()) if config.skips else dictionary


def write_saelens(
    dictionary: Dictionary,
    folder: str | Path,
    *,
    model_name: str | None = None,
    firing_rates: Float[Tensor, " latent"] | None = None,
    force: bool = False,
) -> None:
    """Write a folder that SAELens 6 and later load for inference.

    BatchTopK becomes jumprelu with its calibrated threshold for every latent, as SAELens itself
    exports it; k rounds of matching pursuit become as many iterations without another end.

    Args:
        dictionary: an autoencoder.
        folder: made if absent.
        model_name: of the model that it belongs to.
        firing_rates: share of tokens on which each latent is active.
        force: whether a dictionary that is there already may be replaced.

    Raises:
        ShapeError: if it is no autoencoder.
        ValueRangeError: if its threshold is not calibrated, its site has no hook name or its
            sparsifier no form.
        OutputExistsError: if a dictionary is there already and `force` is False.
        StorageError: if the folder cannot be written.
    """
    folder = Path(folder)
    if (folder / CONFIG_FILE).exists() and not force:
        raise OutputExistsError(
            f"A SAELens folder must be new; got {str(folder)!r} with a {CONFIG_FILE} in it. "
            "Pass force=True to replace it, or choose another place."
        )
    require_autoencoder(dictionary)
    hook_name = None if dictionary.reads is None else hook_of_site(dictionary.reads)
    architecture, config, thresholds = _inference_form(dictionary.activation, dictionary)
    tensors = {name: getattr(dictionary, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    content = {
        "architecture": architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.width,
        "dtype": str(dictionary.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.apply_b_dec_to_input,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **config,
        "metadata": {
            "sae_lens_version": "6.0.0",  # whose layout this is
            "model_name": model_name,
            "hook_name": hook_name,
            "hook_head_index": None,
            "training_architecture": _ARCHITECTURES[dictionary.activation.kind],
            # Our subjects' weights are never processed: their residual stream keeps its mean.
            "model_from_pretrained_kwargs": {"center_writing_weights": False},
        },
    }
    for implied in _IMPLIED.get(architecture, ()):
        del tensors[implied]
    write_tensors(folder / WEIGHTS_FILE, tensors | thresholds)
    if firing_rates is not None:
        # SAELens' constant: a latent that never fired has -10.
        sparsity = {"sparsity": torch.log10(firing_rates + 1e-10)}
        write_tensors(folder / SPARSITY_FILE, sparsity)
    write_json(folder / CONFIG_FILE, content)


def _inference_form(
    activation: nn.Module, dictionary: Dictionary
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Architecture, further config and further tensors that say what the sparsifier does."""
    match activation:
        case ReLUActivation():
            return "standard", {}, {}
        case TopKActivation(k=k):
            return "topk", {"k": k, "rescale_acts_by_decoder_norm": False}, {}
        case AbsTopKActivation(k=k):
            return "abstopk", {"k": k, "rescale_acts_by_decoder_norm": False}, {}
        case BatchTopKActivation(threshold=threshold):
            if bool(threshold.isnan()):
                raise ValueRangeError(
                    "A BatchTopK dictionary must have a calibrated threshold to be exported; got "
                    "none. Fit it to the end, or call activation.calibrate(threshold)."
                )
            filled = threshold.to(dictionary.b_enc).expand(dictionary.width)
            return "jumprelu", {}, {"threshold": filled}
        case JumpReLUActivation(threshold=threshold):
            return "jumprelu", {}, {"threshold": threshold.detach()}
        case GatedActivation():
            return "gated", {}, gated_biases(activation, dictionary.b_enc)
        case MatchingPursuitActivation() | ResidualPursuitActivation():
            return "matching_pursuit", pursuit_config(dictionary, activation), {}
        case _:
            raise ValueRangeError(
                "A sparsifier must be relu, topk, abstopk, batchtopk, jumprelu, gated or a "
                f"matching pursuit to have a form in SAELens; got {activation.kind}. "
                "Save it in our own format instead."
            )


def _sites(
    config: SaeLensConfig, reads: Site | None, writes: Site | None, folder: Path
) -> tuple[Site | None, Site | None]:
    """What is read and written: what the caller says, else what the hooks' names mean."""
    if reads is None and config.hook_name is not None:
        reads = site_of_hook(config.hook_name)
    if not config.transcodes:
        return reads, reads
    if writes is None and config.hook_name_out is not None:
        writes = site_of_hook(config.hook_name_out)
    require_both_sites(reads, writes, folder)
    return reads, writes


def _centring_encoder(
    W_enc: Tensor, b_enc: Tensor, b_dec: Tensor, config: SaeLensConfig
) -> tuple[Tensor, Tensor]:
    """The encoder that subtracts each activation's mean over the width first.

    With C the centring, ``(x C - b_dec) W + b = (x - b_dec) C W + b - b_dec (W - C W)``.
    """
    mean = W_enc.double().mean(0)
    if config.apply_b_dec_to_input:
        b_enc = (b_enc.double() - b_dec.double().sum() * mean).to(b_enc.dtype)
    return (W_enc.double() - mean).to(W_enc.dtype), b_enc


def _references(config: SaeLensConfig) -> tuple[str, ...]:
    """The papers of the architecture that it was trained with."""
    trained_as = config.training_architecture
    return _REFERENCES[trained_as if trained_as in _REFERENCES else config.architecture]
