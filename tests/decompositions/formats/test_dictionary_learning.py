"""dictionary_learning's folders, written here by hand from its layout, against slow definitions."""

import json
import pickle

import pytest
import torch

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
    ValueRangeError,
)
from modelassay.decompositions.formats.dictionary_learning import read_dictionary_learning
from modelassay.decompositions.formats.dictionary_learning_writer import (
    write_dictionary_learning,
)
from modelassay.decompositions.recipes import BatchTopK
from modelassay.subjects.site import Site
from tests.decompositions.formats.peers import (
    SITE,
    D,
    F,
    K,
    Trap,
    assert_encodes,
    assert_forward,
    dictionary_of,
    draw_activations,
    random_weights,
    slow_decode,
    slow_encode,
)

THRESHOLD = 0.7
# class -> name of the decoder's bias, whether it is subtracted from the input
LINEAR = {
    "AutoEncoder": ("bias", True),
    "AutoEncoderNew": ("decoder.bias", False),
    "AutoEncoderTopK": ("b_dec", True),
    "BatchTopKSAE": ("b_dec", True),
}
CLASSES = [*LINEAR, "MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"]
TOPK = ("AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")


def state_of(dict_class, w):
    """The state dict of a class with the given weights."""
    if dict_class in LINEAR:
        state = {
            "encoder.weight": w["W_enc"].t().contiguous(),
            "encoder.bias": w["b_enc"],
            "decoder.weight": w["W_dec"].t().contiguous(),
            LINEAR[dict_class][0]: w["b_dec"],
        }
    else:
        state = {name: w[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if dict_class in TOPK:
        state["k"] = torch.tensor(K, dtype=torch.int)
        state["threshold"] = torch.tensor(THRESHOLD)
    if dict_class == "MatryoshkaBatchTopKSAE":
        state["group_sizes"] = torch.tensor([4, 8, 12])
    if dict_class == "JumpReluAutoEncoder":
        state["threshold"] = w["threshold"]
    return state


def config_of(dict_class, **changes):
    trainer = {
        "trainer_class": "SomeTrainer", "dict_class": dict_class, "lr": 1e-3, "steps": 1000,
        "layer": 3, "lm_name": "EleutherAI/pythia-70m", "submodule_name": "resid_post_layer_3",
        "activation_dim": D, "dict_size": F, "device": "cpu",
    }  # fmt: skip
    if dict_class in TOPK:
        trainer["k"] = K
    buffer = {"d_submodule": D, "io": "out", "n_ctxs": 100, "ctx_len": 128}
    return {"trainer": trainer | changes, "buffer": buffer}


def write_by_hand(folder, config, state):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "ae.pt")
    return folder


def forward_by_hand(dict_class, w, x):
    """Values and reconstructions as the class defines them."""
    rules = {"AutoEncoderTopK": "topk", "JumpReluAutoEncoder": w["threshold"]}
    batched = dict_class in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE")
    rule = torch.tensor(THRESHOLD) if batched else rules.get(dict_class, "relu")
    subtracts = LINEAR.get(dict_class, ("", batched))[1]
    values = slow_encode(w, x, rule, subtracts=subtracts)
    out = slow_decode(w, values)
    # The first one's loader folds the decoder's norms, the second one's encoder scales by them.
    if dict_class in ("AutoEncoder", "JumpReluAutoEncoder"):
        values = values * w["W_dec"].double().norm(dim=1)
    return values, out


@pytest.mark.parametrize("dict_class", CLASSES)
def test_the_forward_pass_is_that_of_the_definition(dict_class, tmp_path):
    w = random_weights()
    dictionary = read_dictionary_learning(
        write_by_hand(tmp_path, config_of(dict_class), state_of(dict_class, w))
    )
    x = draw_activations()
    values, out = forward_by_hand(dict_class, w, x)
    assert_encodes(dictionary, values, x)
    assert_forward(dictionary, out, x)
    assert dictionary.reads == dictionary.writes == SITE
    assert dictionary.references


def test_k_may_stand_in_the_config_alone(tmp_path):
    w = random_weights()
    state = state_of("AutoEncoderTopK", w)
    del state["k"], state["threshold"]
    write_by_hand(tmp_path, config_of("AutoEncoderTopK"), state)
    x = draw_activations()
    values = slow_encode(w, x, "topk", subtracts=True)
    assert_encodes(read_dictionary_learning(tmp_path), values, x)


@pytest.mark.parametrize("changes", [{"submodule_name": "my_layer"}, {"submodule_name": None}])
def test_a_place_that_is_not_said_stays_open(changes, tmp_path):
    write_by_hand(
        tmp_path, config_of("AutoEncoder", **changes), state_of("AutoEncoder", random_weights())
    )
    assert read_dictionary_learning(tmp_path).reads is None
    assert read_dictionary_learning(tmp_path, site=SITE).writes == SITE


def test_the_input_of_a_module_is_not_taken_for_its_output(tmp_path):
    config = config_of("AutoEncoder")
    config["buffer"]["io"] = "in"
    write_by_hand(tmp_path, config, state_of("AutoEncoder", random_weights()))
    assert read_dictionary_learning(tmp_path).reads is None


def test_half_precision_is_read_as_single(tmp_path):
    state = {k: v.bfloat16() for k, v in state_of("AutoEncoder", random_weights()).items()}
    write_by_hand(tmp_path, config_of("AutoEncoder"), state)
    assert read_dictionary_learning(tmp_path).W_dec.dtype == torch.float32


@pytest.mark.parametrize("subtracts", [True, False])
@pytest.mark.parametrize(
    ("kind", "dict_class"),
    [
        ("relu", None),
        ("topk", "AutoEncoderTopK"),
        ("batchtopk", "BatchTopKSAE"),
        ("jumprelu", "JumpReluAutoEncoder"),
    ],
)
def test_what_is_written_has_the_layout_and_the_same_forward(kind, dict_class, subtracts, tmp_path):
    before = dictionary_of(kind, subtracts=subtracts)
    write_dictionary_learning(before, tmp_path, model_name="gpt2")
    config = json.loads((tmp_path / "config.json").read_text())
    dict_class = dict_class or ("AutoEncoder" if subtracts else "AutoEncoderNew")
    assert config["trainer"]["dict_class"] == dict_class
    assert config["trainer"]["lm_name"] == "gpt2"
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    documented = state_of(dict_class, random_weights())
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in documented.items()}
    # The slow definition, reading only the file, agrees with the dictionary.
    x = draw_activations()
    stored = dict(state)
    if dict_class in LINEAR:
        stored = {
            "W_enc": state["encoder.weight"].t(),
            "b_enc": state["encoder.bias"],
            "W_dec": state["decoder.weight"].t(),
            "b_dec": state[LINEAR[dict_class][0]],
            "threshold": torch.zeros(F),
        }
    if kind == "batchtopk":
        assert float(state["threshold"]) == pytest.approx(THRESHOLD)
    assert_forward(before, forward_by_hand(dict_class, stored, x)[1], x)
    after = read_dictionary_learning(tmp_path)
    torch.testing.assert_close(after(x), before(x), atol=1e-4, rtol=1e-4)
    assert (after.reads, after.activation.kind) == (SITE, kind)


def test_a_dictionary_in_the_same_convention_comes_back_bit_for_bit(tmp_path):
    before = dictionary_of("topk")
    write_dictionary_learning(before, tmp_path)
    after = read_dictionary_learning(tmp_path)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(after, name), getattr(before, name))


class TestRefusalsOfTheWriter:
    def test_nothing_is_overwritten_unless_forced(self, tmp_path):
        write_dictionary_learning(dictionary_of("topk"), tmp_path)
        with pytest.raises(OutputExistsError, match=r"with a config\.json in it"):
            write_dictionary_learning(dictionary_of("relu"), tmp_path)
        write_dictionary_learning(dictionary_of("relu"), tmp_path, force=True)
        assert read_dictionary_learning(tmp_path).activation.kind == "relu"

    def test_a_dictionary_that_is_not_calibrated(self, tmp_path):
        recipe = BatchTopK(width=F, k=K)
        dictionary = recipe.build(D, D, torch.zeros(D), torch.Generator(), SITE)
        with pytest.raises(ValueRangeError, match="calibrated threshold to be exported; got none"):
            write_dictionary_learning(dictionary, tmp_path / "ae")
        assert not (tmp_path / "ae").exists()

    def test_a_dictionary_between_two_sites(self, tmp_path):
        dictionary = dictionary_of("topk", writes=Site("mlp_out", 3))
        with pytest.raises(ShapeError, match="reconstruct what they read"):
            write_dictionary_learning(dictionary, tmp_path)

    def test_a_decoder_row_of_zeros_that_would_be_divided_by(self, tmp_path):
        dictionary = dictionary_of("jumprelu")
        with torch.no_grad():
            dictionary.W_dec[5] = 0
        with pytest.raises(ValueRangeError, match=r"must not be zero .* got 1 of them"):
            write_dictionary_learning(dictionary, tmp_path)


class TestRefusalsOfTheReader:
    """Each names the file, the key, what was expected and what was found."""

    def refuse(self, folder, error, message):
        with pytest.raises(error, match=message):
            read_dictionary_learning(folder)

    def folder(self, tmp_path, dict_class="AutoEncoder", changes=None, **config):
        state = state_of(dict_class, random_weights()) | (changes or {})
        return write_by_hand(tmp_path, config_of(dict_class, **config), state)

    @pytest.mark.parametrize("name", ["config.json", "ae.pt"])
    def test_a_missing_file(self, name, tmp_path):
        (self.folder(tmp_path) / name).unlink()
        self.refuse(tmp_path, CorruptFileError, f"must hold {name.replace('.', '[.]')}; got none")

    @pytest.mark.parametrize("kept", [0, 10, -100])
    def test_a_truncated_file(self, kept, tmp_path):
        path = self.folder(tmp_path) / "ae.pt"
        path.write_bytes(path.read_bytes()[:kept])
        self.refuse(tmp_path, CorruptFileError, r"ae\.pt' must be a whole state dict of tensors")

    @pytest.mark.parametrize(
        "dump", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))]
    )
    def test_a_foreign_pickle_is_never_opened(self, dump, tmp_path):
        folder = self.folder(tmp_path)
        dump({"encoder.weight": Trap(tmp_path / "trap")}, folder / "ae.pt")
        self.refuse(tmp_path, CorruptFileError, r"ae\.pt'.*Other pickles may run any code")
        assert not (tmp_path / "trap").exists()

    def test_a_file_that_holds_no_dictionary(self, tmp_path):
        torch.save(torch.zeros(3), self.folder(tmp_path) / "ae.pt")
        self.refuse(tmp_path, CorruptFileError, "must hold tensors by name; got Tensor")

    def test_the_backup_of_a_training(self, tmp_path):
        backup = {"step": 500, "ae": {}, "optimizer": {}, "norm_factor": 2.0}
        write_by_hand(tmp_path, config_of("AutoEncoder"), backup)
        self.refuse(tmp_path, CorruptFileError, "backup of a training at step 500")

    @pytest.mark.parametrize("name", ["encoder.weight", "decoder.weight"])
    def test_a_transposed_matrix(self, name, tmp_path):
        state = state_of("AutoEncoder", random_weights())
        self.folder(tmp_path, changes={name: state[name].t().contiguous()})
        self.refuse(tmp_path, ShapeError, rf"ae\.pt': {name} must have the shape .* Transpose it")

    @pytest.mark.parametrize("dict_class", ["BatchTopKSAE", "JumpReluAutoEncoder"])
    def test_a_missing_threshold(self, dict_class, tmp_path):
        state = state_of(dict_class, random_weights())
        del state["threshold"]
        write_by_hand(tmp_path, config_of(dict_class), state)
        self.refuse(tmp_path, CorruptFileError, r"ae\.pt': the tensor threshold must be there")

    def test_a_threshold_that_the_training_never_set(self, tmp_path):
        self.folder(tmp_path, "BatchTopKSAE", {"threshold": torch.tensor(-1.0)})
        self.refuse(tmp_path, ValueRangeError, "threshold must be at least 0, .* got -1")

    def test_two_files_that_disagree_on_k(self, tmp_path):
        self.folder(tmp_path, "AutoEncoderTopK", {"k": torch.tensor(5)})
        self.refuse(tmp_path, ValueRangeError, r"k must be 3, as config\.json says; got 5")

    def test_a_tensor_too_many(self, tmp_path):
        self.folder(tmp_path, changes={"b_skip": torch.zeros(D)})
        self.refuse(tmp_path, ValueRangeError, "got also b_skip")

    def test_something_that_is_no_tensor(self, tmp_path):
        self.folder(tmp_path, changes={"bias": [0.0] * D})
        self.refuse(tmp_path, CorruptFileError, r"bias must be a tensor of shape \[6\]; got list")

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, bad, tmp_path):
        self.folder(tmp_path, changes={"encoder.bias": torch.tensor([bad] + [0.0] * (F - 1))})
        self.refuse(tmp_path, NonFiniteError, r"encoder\.bias must be finite; got 1 entries")

    def test_a_class_that_is_not_known(self, tmp_path):
        self.folder(tmp_path, dict_class_name="x")
        write_by_hand(tmp_path, config_of("IdentityDict"), {})
        self.refuse(tmp_path, ValueRangeError, r"dict_class must be one of .* 'IdentityDict'")

    @pytest.mark.parametrize("key", ["activation_dim", "dict_size"])
    def test_a_config_without_a_size(self, key, tmp_path):
        self.folder(tmp_path, **{key: None})
        self.refuse(tmp_path, CorruptFileError, rf"config\.json': {key} must be a whole number")

    def test_a_config_without_its_trainer(self, tmp_path):
        write_by_hand(tmp_path, {"buffer": {}}, {})
        self.refuse(tmp_path, CorruptFileError, "must have the key 'trainer' .* got buffer")
