"""Read cross-layer transcoders of Llamascopium 2.

A folder holds ``config.json`` and ``sae_weights.safetensors``: ``W_E`` [layer, d, width], ``b_E``
[layer, width], for every target m ``W_D.m`` [m + 1, width, d], the decoders of all sources up to
it, and ``b_D.m`` [d], and for JumpReLU ``activation_function.log_jumprelu_threshold`` [layer,
width]; scales as in `llamascopium`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from modelassay.core.errors import CorruptFileError
from modelassay.decompositions.cross_layer import CrossLayerTranscoder, Source
from modelassay.decompositions.decoder_rows import HeldRows
from modelassay.decompositions.formats.foreign_files import check_tensors
from modelassay.decompositions.formats.layers import sites_of_layers
from modelassay.decompositions.formats.llamascopium_config import (
    THRESHOLD,
    WEIGHTS_FILE,
    LlamascopiumConfig,
    folded,
    hook_site,
    read_llamascopium_config,
    read_llamascopium_weights,
)
from modelassay.subjects.site import Site


def read_llamascopium_cross_layer(
    folder: str | Path,
    *,
    reads: Sequence[Site] | None = None,
    writes: Sequence[Site] | None = None,
) -> CrossLayerTranscoder:
    """Read a folder with ``config.json`` and ``sae_weights.safetensors``.

    Args:
        folder: holds both.
        reads: where the activations of every layer stand; None reads the hooks' names.
        writes: likewise for what the reconstructions stand for.

    Raises:
        CorruptFileError: if a file or tensor is missing or truncated.
        ShapeError: if a tensor has the wrong shape.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if the config says what this reader does not understand.
    """
    folder = Path(folder)
    config = read_llamascopium_config(folder, sae_type="clt")
    hooks_in, hooks_out = _hooks(config, "hook_points_in"), _hooks(config, "hook_points_out")
    if reads is None:
        reads = [hook_site(config, "hook_points_in", hook) for hook in hooks_in]
    if writes is None:
        writes = [hook_site(config, "hook_points_out", hook) for hook in hooks_out]
    reads = sites_of_layers(reads, [None] * len(hooks_in), folder, "reads")
    writes = sites_of_layers(writes, [None] * len(hooks_in), folder, "writes")
    tensors, norms = read_llamascopium_weights(folder)
    path = folder / WEIGHTS_FILE
    weights = check_tensors(tensors, _shapes(config, len(hooks_in)), path)
    scales_in = [config.scale(norms, hook, path) for hook in hooks_in]
    scales_out = torch.tensor([config.scale(norms, hook, path) for hook in hooks_out])
    sources = [
        _source(config, weights, layer, reads[layer], scales_in[layer], scales_out)
        for layer in range(len(hooks_in))
    ]
    biases = [weights.get(f"b_D.{m}", torch.zeros(config.d)) for m in range(len(hooks_in))]
    b_dec = torch.stack(biases) / scales_out.unsqueeze(1)
    return CrossLayerTranscoder(sources=sources, writes=writes, b_dec=b_dec)


def _source(
    config: LlamascopiumConfig,
    weights: dict[str, Tensor],
    layer: int,
    site: Site,
    scale: float,
    scales_out: Tensor,
) -> Source:
    targets = range(layer, len(scales_out))
    decoders = torch.stack([weights[f"W_D.{m}"][layer] for m in targets], dim=1)
    own = {key: weights[key][layer] for key in ("W_E", "b_E", THRESHOLD) if key in weights}
    lengths = decoders.flatten(1).norm(dim=1)
    W_enc, b_enc, activation, factors = folded(config, own, lengths, scale=scale)
    ratios = (scale / scales_out[layer:]).unsqueeze(1)
    return Source(
        reads=site,
        W_enc=W_enc,
        b_enc=b_enc,
        activation=activation,
        decoders=HeldRows(weight=decoders * factors[:, None, None] * ratios),
    )


def _hooks(config: LlamascopiumConfig, key: str) -> list[str]:
    hooks = config.content.get(key)
    count = len(config.content.get("hook_points_in") or ())
    if not isinstance(hooks, list) or not hooks or len(hooks) != count:
        raise CorruptFileError(
            f"{str(config.path)!r}: {key} must name one hook for every layer; got {hooks!r}. "
            "Fetch the folder again."
        )
    return [str(hook) for hook in hooks]


def _shapes(config: LlamascopiumConfig, n_layers: int) -> dict[str, list[int]]:
    d, width = config.d, config.width
    shapes = {"W_E": [n_layers, d, width], "b_E": [n_layers, width]}
    for target in range(n_layers):
        shapes[f"W_D.{target}"] = [target + 1, width, d]
        if config.decoder_bias:
            shapes[f"b_D.{target}"] = [d]
    if config.act_fn == "jumprelu":
        shapes[THRESHOLD] = [n_layers, width]
    return shapes
