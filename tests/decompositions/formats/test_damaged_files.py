"""Every format's files, damaged in every way: refused with file and key, or read as before."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modelassay.core.errors import CorruptFileError, ModelassayError, NonFiniteError, ShapeError
from modelassay.core.files import sha256_of_file
from modelassay.decompositions.cross_layer_storage import load_cross_layer, save_cross_layer
from modelassay.decompositions.formats.circuit_tracer_cross_layer import (
    read_circuit_tracer_cross_layer,
)
from modelassay.decompositions.formats.gemma_scope_cross_layer import (
    read_gemma_scope_cross_layer,
)
from modelassay.decompositions.formats.llamascopium_cross_layer import (
    read_llamascopium_cross_layer,
)
from modelassay.decompositions.formats.registry import READERS
from modelassay.decompositions.recipe_temporal import Temporal
from modelassay.decompositions.recipes import TopK
from modelassay.decompositions.temporal_storage import load_temporal
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site
from tests.decompositions.formats import test_cross_layer_formats as cross_layer
from tests.decompositions.formats import test_gemma_scope as gemma
from tests.decompositions.formats import test_llama_scope as llama
from tests.decompositions.formats import test_llamascopium as llamascopium
from tests.decompositions.formats import test_single_files as single
from tests.decompositions.formats.peers import SITE, D, F, Trap, dictionary_of, random_weights

PEERS = Path(__file__).parent / "fixtures" / "peers"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A format's fixture."""

    read: object
    write: object
    """From an empty folder to what the reader is given."""
    weights: str
    """The file of tensors, below what the writer was given."""
    config: str | None = None
    widths: tuple[str, ...] = ()
    """Keys of the config, by path, that say how large a tensor is."""
    may_lack: tuple[str, ...] = ()
    """Tensors without which the file means something else."""
    sealed: bool = False
    """Whether a checksum finds every change before the tensors are looked at."""
    unread: tuple[str, ...] = field(default=())
    """Tensors of training that are not looked at."""


def peer(name):
    def write(folder):
        target = folder / name.split("/")[1]
        shutil.copytree(PEERS / name, target)
        return target

    return write


def gemma_skip(folder):
    w = random_weights() | {"affine_skip_connection": torch.ones(D, D)}
    return gemma.write_second(folder, w, affine_connection=True, **gemma.HOOKS)


def tracer(folder):
    tensors = single.tracer_tensors(random_weights(), jumps=True) | {"W_skip": torch.ones(D, D)}
    (folder / "config.yaml").write_text(f"{single.CONFIG}activation: jump_relu\n")
    save_file(tensors, folder / "layer_7.safetensors")
    return folder / "layer_7.safetensors"


def pickled(state_of, name):
    return lambda folder: single.save(folder / name, state_of(random_weights()))


def ours(folder):
    dictionary_of("jumprelu").save(folder)
    return folder


def our_skip(folder):
    base = dictionary_of("topk", subtracts=False, writes=Site("mlp_out", 3))
    SkipTranscoder.around(base, torch.eye(D)).save(folder)
    return folder


def our_temporal(folder):
    recipe = Temporal(width=F, k=3, heads=2, bottleneck=2)
    recipe.build(torch.zeros(D), 1.0, torch.Generator().manual_seed(0), SITE).save(folder)
    return folder


def our_layers(folder):
    made = cross_layer.write_circuit_tracer(folder / "source", cross_layer.random_layers())
    save_cross_layer(read_circuit_tracer_cross_layer(made), folder)
    shutil.rmtree(made)
    return folder


CASES = {
    "modelassay": Case(
        read=READERS["modelassay"], write=ours, weights="weights.safetensors",
        config="config.json", sealed=True,
    ),
    "modelassay, skip": Case(
        read=READERS["modelassay"], write=our_skip, weights="weights.safetensors",
        config="config.json", sealed=True,
    ),
    "modelassay, cross-layer": Case(
        read=load_cross_layer, write=our_layers, weights="weights.safetensors",
        config="config.json", sealed=True,
    ),
    "modelassay, temporal": Case(
        read=load_temporal, write=our_temporal, weights="weights.safetensors",
        config="config.json", sealed=True,
    ),
    "saelens": Case(
        read=READERS["saelens"], write=peer("saelens/jumprelu"),
        weights="jumprelu/sae_weights.safetensors", config="jumprelu/cfg.json",
        widths=("d_in", "d_sae"),
    ),
    "saelens, pursuit": Case(
        read=READERS["saelens"], write=peer("saelens/matching_pursuit"),
        weights="matching_pursuit/sae_weights.safetensors", config="matching_pursuit/cfg.json",
        widths=("d_in", "d_sae"),
    ),
    "dictionary_learning": Case(
        read=READERS["dictionary_learning"], write=peer("dictionary_learning/standard"),
        weights="standard/ae.pt", config="standard/config.json",
        widths=("trainer.activation_dim", "trainer.dict_size"),
    ),
    "sparsify": Case(
        read=READERS["sparsify"], write=peer("sparsify/layers.3"),
        weights="layers.3/sae.safetensors", config="layers.3/cfg.json",
        widths=("d_in", "num_latents"),
    ),
    "sparsify, skip": Case(
        read=READERS["sparsify"], write=peer("sparsify/layers.4.mlp"),
        weights="layers.4.mlp/sae.safetensors", config="layers.4.mlp/cfg.json",
        widths=("d_in", "num_latents"),
    ),
    "gemma_scope 1": Case(
        read=READERS["gemma_scope"],
        write=lambda folder: gemma.write_first(folder, random_weights()),
        weights="params.npz",
    ),
    "gemma_scope 2": Case(
        read=READERS["gemma_scope"],
        write=lambda folder: gemma.write_second(folder, random_weights()),
        weights="params.safetensors", config="config.json",
    ),
    "gemma_scope 2, skip": Case(
        read=READERS["gemma_scope"], write=gemma_skip, weights="params.safetensors",
        config="config.json",
    ),
    "gemma_scope 2, cross-layer": Case(
        read=read_gemma_scope_cross_layer,
        write=lambda folder: cross_layer.write_gemma_scope(folder, cross_layer.random_layers()),
        weights="params_layer_1.safetensors", config="config.json",
    ),
    "llama_scope": Case(
        read=READERS["llama_scope"],
        write=lambda folder: llama.write_by_hand(folder, llama.config_of(), random_weights()),
        weights="checkpoints/final.safetensors", config="hyperparams.json",
        widths=("d_model", "d_sae"),
    ),
    "llamascopium": Case(
        read=READERS["llama_scope"],
        write=lambda folder: llamascopium.write_by_hand(folder, random_weights()),
        weights="sae_weights.safetensors", config="config.json",
        widths=("d_model", "expansion_factor"),
    ),
    "llama_scope, R1": Case(
        read=READERS["llama_scope"],
        write=lambda folder: llamascopium.write_by_hand(folder, random_weights(), old_names=True),
        weights="sae_weights.safetensors", config="config.json",
        widths=("d_model", "expansion_factor"),
    ),
    "llamascopium, cross-layer": Case(
        read=read_llamascopium_cross_layer,
        write=lambda folder: cross_layer.write_llamascopium(folder, cross_layer.random_layers()),
        weights="sae_weights.safetensors", config="config.json",
        widths=("d_model", "expansion_factor"),
    ),
    "circuit_tracer": Case(
        read=READERS["circuit_tracer"], write=tracer, weights="layer_7.safetensors",
        may_lack=("W_skip",),
    ),
    "circuit_tracer, cross-layer": Case(
        read=read_circuit_tracer_cross_layer,
        write=lambda folder: cross_layer.write_circuit_tracer(folder, cross_layer.random_layers()),
        weights="W_enc_1.safetensors",
    ),
    "circuit_tracer, decoders": Case(
        read=read_circuit_tracer_cross_layer,
        write=lambda folder: cross_layer.write_circuit_tracer(folder, cross_layer.random_layers()),
        weights="W_dec_1.safetensors",
    ),
    "openai": Case(
        read=READERS["openai"], write=pickled(single.openai_state, "3.pt"), weights="3.pt",
        may_lack=("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"),
        unread=("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"),
    ),
    "qwen_scope": Case(
        read=READERS["qwen_scope"], write=pickled(single.qwen_state, single.QWEN),
        weights=single.QWEN,
    ),
    "goodfire": Case(
        read=READERS["goodfire"], write=pickled(single.goodfire_state, single.GOODFIRE),
        weights=single.GOODFIRE,
    ),
}  # fmt: skip
OPEN = [name for name, case in CASES.items() if not case.sealed]
PICKLED = [name for name, case in CASES.items() if case.weights.endswith((".pt", ".pth"))]


def load(path):
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        return {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    return torch.load(path, weights_only=True)


def store(path, content):
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in content.items()})
    else:
        torch.save(content, path)


def tensors_of(content):
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


@pytest.fixture
def made(request, tmp_path):
    case = CASES[request.param]
    given = case.write(tmp_path)
    path = tmp_path / case.weights
    case.read(str(given))  # whole, it is read
    return case, given, path


def refuse(case, given, error, *parts):
    with pytest.raises(error) as caught:
        case.read(str(given))
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("made", CASES, indirect=True)
def test_a_missing_file_is_named(made):
    case, given, path = made
    path.unlink()
    refuse(case, given, CorruptFileError, path.name)


@pytest.mark.parametrize("made", [n for n, c in CASES.items() if c.config], indirect=True)
def test_a_missing_or_damaged_config_is_named(made, tmp_path):
    case, given, _ = made
    config = tmp_path / case.config
    whole = config.read_text()
    config.write_text(whole[:-3])
    refuse(case, given, CorruptFileError, config.name, "must be JSON")
    config.write_text("[]")
    refuse(case, given, CorruptFileError, config.name, "must hold a JSON object")
    config.unlink()
    refuse(case, given, CorruptFileError, config.name)


@pytest.mark.parametrize("made", CASES, indirect=True)
@pytest.mark.parametrize("kept", [0, 0.5, -1])
def test_a_truncated_file_is_named(made, kept):
    case, given, path = made
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    refuse(case, given, CorruptFileError, path.name)


@pytest.mark.parametrize("made", OPEN, indirect=True)
def test_a_missing_tensor_is_named(made):
    case, given, path = made
    content = load(path)
    needed = [name for name in tensors_of(content) if name not in case.may_lack]
    assert needed
    for name in needed:
        store(path, {key: value for key, value in content.items() if key != name})
        refuse(case, given, CorruptFileError, path.name, name)


@pytest.mark.parametrize("made", OPEN, indirect=True)
def test_a_transposed_tensor_is_named_with_both_shapes(made):
    case, given, path = made
    content = load(path)
    for name, tensor in tensors_of(content).items():
        turned = tensor.permute(tuple(range(tensor.ndim))[::-1])
        if turned.shape == tensor.shape:
            continue
        store(path, content | {name: turned.contiguous()})
        refuse(
            case, given, ShapeError, path.name, name, str(list(tensor.shape)),
            str(list(turned.shape)),
        )  # fmt: skip


@pytest.mark.parametrize("made", OPEN, indirect=True)
def test_a_tensor_that_is_a_row_too_long_is_refused(made):
    case, given, path = made
    content = load(path)
    for name, tensor in tensors_of(content).items():
        if tensor.ndim == 0 or name in case.unread:
            continue
        store(path, content | {name: torch.cat([tensor, tensor[:1]])})
        refuse(case, given, ModelassayError, path.name)


@pytest.mark.parametrize("made", OPEN, indirect=True)
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_tensor_that_is_not_finite_is_named(made, bad):
    case, given, path = made
    content = load(path)
    for name, tensor in tensors_of(content).items():
        if not tensor.is_floating_point() or tensor.ndim == 0 or name in case.unread:
            continue
        damaged = tensor.flatten().clone()
        damaged[-1] = bad
        store(path, content | {name: damaged.reshape(tensor.shape)})
        refuse(case, given, NonFiniteError, path.name, name, "got 1 entries")


@pytest.mark.parametrize("made", OPEN, indirect=True)
def test_a_tensor_that_nobody_knows_is_named(made):
    case, given, path = made
    store(path, load(path) | {"noise": torch.zeros(3)})
    refuse(case, given, ModelassayError, path.name, "noise")


@pytest.mark.parametrize(
    ("made", "key"), [(n, k) for n, c in CASES.items() for k in c.widths], indirect=["made"]
)
def test_weights_of_another_configuration_are_refused(made, key, tmp_path):
    case, given, path = made
    config = tmp_path / case.config
    content = json.loads(config.read_text())
    *outer, last = key.split(".")
    inner = content
    for part in outer:
        inner = inner[part]
    inner[last] = inner[last] * 2
    config.write_text(json.dumps(content))
    refuse(case, given, ShapeError, path.name, "must have the shape")


@pytest.mark.parametrize("made", PICKLED, indirect=True)
def test_a_foreign_pickle_is_never_opened(made, tmp_path):
    case, given, path = made
    torch.save({"state": Trap(tmp_path / "trap")}, path)
    refuse(case, given, CorruptFileError, path.name, "may run any code")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("made", [n for n, c in CASES.items() if c.sealed], indirect=True)
def test_our_own_folders_are_sealed(made):
    case, given, path = made
    content = load(path)
    name = next(iter(content))
    store(path, content | {name: content[name] + 1})
    refuse(case, given, CorruptFileError, path.name, "SHA-256")


def entries_of(content, prefix=()):
    """The paths of all entries of nested objects."""
    for key, value in content.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from entries_of(value, (*prefix, key))


@pytest.mark.parametrize("made", [n for n, c in CASES.items() if c.sealed], indirect=True)
def test_an_entry_that_our_own_config_lacks_is_named(made):
    case, given, path = made
    config = path.parent / "config.json"
    whole = config.read_text()
    for entry in entries_of(json.loads(whole)["config"]):
        content = json.loads(whole)
        *outer, last = ("config", *entry)
        inner = content
        for part in outer:
            inner = inner[part]
        del inner[last]
        config.write_text(json.dumps(content))
        refuse(case, given, CorruptFileError, str(path.parent), repr(last))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda recipe: recipe.pop("kind"), "entry 'kind'; got none"),
        (lambda recipe: recipe.pop("width"), "TopK.* must have its own fields; got .*'width'"),
        (lambda recipe: recipe.update(noise=1), "TopK.* must have its own fields; got .*'noise'"),
        (lambda recipe: recipe.update(kind="Topk"), "Did you mean 'TopK'"),
    ],
)
def test_a_recipe_that_was_altered_is_refused_by_name(change, message, tmp_path):
    build = TopK(width=F, k=3).build
    build(D, D, torch.zeros(D), torch.Generator().manual_seed(0), SITE).save(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    change(content["config"]["recipe"])
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelassayError, match=message):
        READERS["modelassay"](str(tmp_path))


@pytest.mark.parametrize("made", [n for n, c in CASES.items() if c.sealed], indirect=True)
def test_a_tensor_that_our_own_folders_lack_is_named(made):
    case, given, path = made
    content = load(path)
    for name in content:
        store(path, {key: value for key, value in content.items() if key != name})
        config = json.loads((path.parent / "config.json").read_text())
        config["weights_sha256"] = sha256_of_file(path)
        (path.parent / "config.json").write_text(json.dumps(config))
        refuse(case, given, CorruptFileError, str(path.parent), name.split(".")[-1])


def test_every_format_is_damaged_here():
    assert {name.split()[0].rstrip(",") for name in CASES} >= READERS.keys()
    assert F != D  # or transposed matrices would not show
