"""Read the temporal dictionaries of Lubana et al. 2025, as their authors share them.

A folder holds ``conf.yaml`` and ``latest_ckpt.safetensors`` with ``D`` [width, d], ``b`` [d] or
[1, d], ``E`` [d, width] unless it is tied, and ``attn_layers.0.k_ctx.weight`` and so on; its path
names the layer, as in ``layer_12/temporal``.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from torch import Tensor

from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.core.provenance import Provenance
from modelassay.decompositions.formats.foreign_files import (
    check_tensors,
    read_safetensors,
    refusal,
    require_file,
    whole_number,
)
from modelassay.decompositions.formats.hub import fetch, parse_place
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import ReLUActivation, TopKActivation
from modelassay.decompositions.temporal import TemporalDictionary
from modelassay.subjects.site import Site

CONFIG_FILE = "conf.yaml"
WEIGHTS_FILE = "latest_ckpt.safetensors"
_KIND = "temporal"
_PREFIX = "temporal:"
_LAYER = re.compile(r"layer_(\d+)")


def refuse_temporal(name: str) -> NoReturn:
    """Say what to do with a temporal dictionary where a decomposition is asked for.

    Raises:
        ValueRangeError: always.
    """
    raise ValueRangeError(
        f"{name!r}: a decomposition's code of a token must depend on that token alone; got a "
        f"temporal SAE, which looks at earlier tokens. Use read_temporal({name!r})."
    )


def read_temporal(
    name: str | Path, *, site: Site | None = None, mirror: str | Path | None = None
) -> TemporalDictionary:
    """Read a folder, or ``ORG/REPO/PATH`` in a mirror or on the Hugging Face hub.

    Args:
        name: such as ``canrager/temporalSAEs/gemma-2-2B/layer_12/temporal``.
        site: where the dictionary belongs; None means ``resid_post`` of the layer in the path.
        mirror: a folder with ``ORG/REPO/files`` to use instead of the hub; None asks the
            environment for `MODELASSAY_MIRROR`.

    Raises:
        CorruptFileError: if a file or a tensor is missing, or one is damaged.
        ShapeError: if a tensor has the wrong shape, for example transposed.
        NonFiniteError: if a tensor holds NaN or infinities.
        ValueRangeError: if there is something that this reader does not know.
    """
    text = str(name).removeprefix(_PREFIX)
    place = parse_place(text)
    if Path(text).exists() or place is None:
        return _read(Path(text), site)
    wanted = [place.inside(file).path for file in (CONFIG_FILE, WEIGHTS_FILE)]
    fetched = fetch(place, wanted, mirror=mirror)
    dictionary = _read(fetched.root / place.path, site)
    dictionary.provenance = Provenance.collect(
        seed=0,
        source=text,
        format=_KIND,
        repository=place.repository,
        revision=fetched.revision or place.revision,
    )
    return dictionary


def _read(folder: Path, site: Site | None) -> TemporalDictionary:
    path = folder / CONFIG_FILE
    sizes, settings = _sections(path)
    d = whole_number(sizes, "dimin", path)
    width = int(d * _positive(settings, "exp_factor", path))
    layers = whole_number(settings, "n_attn_layers", path)
    heads = whole_number(settings, "n_heads", path)
    bottleneck = whole_number(settings, "bottleneck_factor", path)
    if not isinstance(settings.get("tied_weights"), bool):
        raise refusal(path, "sae.tied_weights", settings.get("tied_weights"), "true or false")
    weights = _weights(folder / WEIGHTS_FILE, d, width, layers, bottleneck)
    if ("E" in weights) == settings["tied_weights"]:
        raise CorruptFileError(
            f"{str(folder)!r}: there must be an encoder E exactly if weights are not tied; got "
            f"tied_weights={settings['tied_weights']} and {', '.join(sorted(weights))}. "
            "Fetch the folder again."
        )
    if site is None and (named := _LAYER.search(folder.as_posix())):
        site = Site("resid_post", int(named[1]))
    dictionary = TemporalDictionary(
        W_dec=weights["D"],
        b_dec=weights["b"],
        W_enc=weights.get("E"),
        activation=_activation(settings, path),
        layers=layers,
        heads=heads,
        bottleneck=bottleneck,
        input_scale=_positive(settings, "scaling_factor", path),
        site=site,
    )
    attention = {name: tensor for name, tensor in weights.items() if name.startswith("attn_")}
    dictionary.load_state_dict(dictionary.state_dict() | attention)
    return dictionary


def _sections(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    require_file(path, _KIND)
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CorruptFileError(
            f"{str(path)!r} must be YAML; got {type(error).__name__}. Fetch it again."
        ) from error
    found = [content.get(name) if isinstance(content, dict) else None for name in ("llm", "sae")]
    if not all(isinstance(section, dict) for section in found):
        raise CorruptFileError(
            f"{str(path)!r} must have the sections llm and sae; got {type(content).__name__} "
            "without them. Fetch it again."
        )
    return found[0], found[1]  # pyright: ignore[reportReturnType]  # both are mappings


def _positive(section: Mapping[str, Any], key: str, path: Path) -> float:
    value = section.get(key)
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise refusal(path, f"sae.{key}", value, "a finite number above 0")
    return float(value)


def _activation(settings: Mapping[str, Any], path: Path) -> Sparsifier:
    kind = settings.get("sae_diff_type")
    if kind not in ("topk", "relu"):
        raise refusal(path, "sae.sae_diff_type", kind, "topk or relu")
    if kind == "relu" or settings.get("kval_topk") is None:
        return ReLUActivation()  # SAELens reads topk without a k so, too
    return TopKActivation(whole_number(settings, "kval_topk", path))


def _weights(path: Path, d: int, width: int, layers: int, bottleneck: int) -> dict[str, Tensor]:
    state = read_safetensors(path, _KIND)
    if "b" in state and list(state["b"].shape) == [1, d]:
        state["b"] = state["b"].squeeze(0)
    sizes = dict.fromkeys(("k_ctx", "q_target"), width // bottleneck)
    sizes |= dict.fromkeys(("v_ctx", "c_proj"), width)
    wanted = {"D": [width, d], "b": [d], "E": [d, width]}
    for layer in range(layers):
        for name, rows in sizes.items():
            wanted[f"attn_layers.{layer}.{name}.weight"] = [rows, width]
            wanted[f"attn_layers.{layer}.{name}.bias"] = [rows]
    return {
        name: tensor.to(torch.float32)
        for name, tensor in check_tensors(state, wanted, path, optional=["E"]).items()
    }
