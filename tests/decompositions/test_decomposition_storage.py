"""Saved decompositions are the same when they come back, or are refused."""

import json
from types import SimpleNamespace

import pytest
import torch

from modelassay.core.errors import CorruptFileError, OutputExistsError, UnknownNameError
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.inference_time import Pursuit
from modelassay.decompositions.linear import PCA, Neurons, RandomDictionary
from modelassay.decompositions.local_interaction import LocalInteractionBasis
from modelassay.decompositions.recipes import (
    AbsTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.decompositions.storage import load_decomposition
from modelassay.subjects.site import Site

D = 6
SITE = Site(role="resid_post", layer=2)


def draw_activations():
    return torch.randn(50, D, generator=generator(9)) + 1


def built(recipe):
    x = draw_activations()
    return recipe.build(D, D, x.mean(0), generator(0), SITE)


def calibrated():
    dictionary = built(BatchTopK(width=24, k=3))
    dictionary.activation.calibrate(0.1)  # not exact in six decimal digits
    return dictionary


def jumprelu():
    start = built(TopK(width=24, k=3))
    return Dictionary(
        W_enc=start.W_enc,
        b_enc=start.b_enc,
        W_dec=start.W_dec,
        b_dec=start.b_dec,
        activation=JumpReLUActivation(torch.rand(24, generator=generator(0))),
        reads=SITE,
        apply_b_dec_to_input=False,
    )


def pca(k, site):
    x = draw_activations()
    moments = SimpleNamespace(mean=x.mean(0), covariance=torch.cov(x.t()))
    return PCA.from_moments(moments, k, site=site)


def local_interaction():
    x = draw_activations()
    moments = SimpleNamespace(mean=x.mean(0), covariance=torch.cov(x.t()))
    reader = torch.randn(4, D, generator=generator(1), dtype=torch.float64)
    return LocalInteractionBasis.from_moments(moments, reader.t() @ reader, site=SITE)


MAKERS = {
    "topk": lambda: built(TopK(width=24, k=3)),
    "frozen": lambda: built(TopK(width=24, k=3, frozen_decoder=True)),
    "batchtopk": calibrated,
    "uncalibrated": lambda: built(BatchTopK(width=24, k=3)),
    "relu": lambda: built(ReLUL1(width=24, l1_coefficient=1 / 3)),
    "jumprelu": jumprelu,
    "trained_jumprelu": lambda: built(JumpReLU(width=24, target_l0=3.0, initial_threshold=1 / 3)),
    "abstopk": lambda: built(AbsTopK(width=24, k=3)),
    "groupmax": lambda: built(GroupMax(width=24, k=3)),
    "matryoshka": lambda: built(Matryoshka(width=24, k=3, sparsifier="topk", prefixes=(5, 24))),
    "random": lambda: RandomDictionary(
        24, D, 3, generator=generator(0), mean=draw_activations().mean(0), site=SITE
    ),
    "pca": lambda: pca(None, SITE),
    "pca_k": lambda: pca(2, None),
    "neurons": lambda: Neurons(D, SITE),
    "local_interaction": local_interaction,
    "pursuit": lambda: Pursuit(built(TopK(width=24, k=3)), k=2),
    "pursuit_of_pca": lambda: Pursuit(
        pca(None, SITE), k=2, method="gradient_pursuit", non_negative=False
    ),
}


def saved(folder, kind="topk"):
    MAKERS[kind]().save(folder)
    return folder


@pytest.mark.parametrize("kind", MAKERS)
def test_what_comes_back_is_the_same(kind, tmp_path):
    before = MAKERS[kind]()
    before.save(tmp_path / "new" / "folder")
    after = load_decomposition(tmp_path / "new" / "folder")
    facts = ("name", "references", "reads", "writes", "width", "d_in", "d_out")
    assert [getattr(after, f) for f in facts] == [getattr(before, f) for f in facts]
    assert after.subject_fingerprint is None
    assert after.provenance is None
    if isinstance(before, Dictionary):
        assert after.recipe == before.recipe
        assert after.frozen_decoder == before.frozen_decoder
        assert after.apply_b_dec_to_input == before.apply_b_dec_to_input
        assert after.W_enc.t().is_contiguous()
        state = after.state_dict()
        assert state.keys() == before.state_dict().keys()
        for name, tensor in before.state_dict().items():
            torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, equal_nan=True)
    if kind != "uncalibrated":
        x = draw_activations()
        assert torch.equal(after.encode(x).dense(), before.encode(x).dense())
        assert torch.equal(after(x), before(x))


def test_used_variances_covectors_and_threshold_come_back(tmp_path):
    before = MAKERS["local_interaction"]()
    before.save(tmp_path)
    after = load_decomposition(tmp_path)
    assert isinstance(after, LocalInteractionBasis)
    assert torch.equal(after.used_variance, before.used_variance)
    assert torch.equal(after.covectors, before.covectors)
    assert after.threshold == before.threshold


def test_a_pursuit_comes_back_with_what_it_wraps(tmp_path):
    base = MAKERS["topk"]()
    base.subject_fingerprint = "0123456789abcdef"
    base.provenance = Provenance.collect(seed=3, tokens=1000)
    before = Pursuit(base, k=2, method="mp")
    before.save(tmp_path)
    after = load_decomposition(tmp_path)
    assert isinstance(after, Pursuit)
    assert (after.k, after.method, after.non_negative) == (2, "mp", True)
    assert after.base.recipe == base.recipe
    assert after.base.references == base.references
    for found in (after, after.base):
        assert found.subject_fingerprint == base.subject_fingerprint
        assert found.provenance == base.provenance
    x = draw_activations()
    assert torch.equal(after.base(x), base(x))


def test_an_unknown_kind_inside_a_pursuit_is_named(tmp_path):
    folder = saved(tmp_path, "pursuit")
    edit_config(folder, lambda c: c["config"]["base"].update(kind="dictionry"))
    with pytest.raises(UnknownNameError, match=r"kind must be .* Did you mean 'dictionary'"):
        load_decomposition(folder)
    edit_config(folder, lambda c: c["config"].pop("method"))
    edit_config(folder, lambda c: c["config"]["base"].update(kind="dictionary"))
    with pytest.raises(CorruptFileError, match="the entry 'method'; got none"):
        load_decomposition(folder)


def test_provenance_and_subject_come_back(tmp_path):
    before = MAKERS["topk"]()
    before.subject_fingerprint = "0123456789abcdef"
    before.provenance = Provenance.collect(seed=3, tokens=1000)
    before.save(tmp_path)
    after = load_decomposition(tmp_path)
    assert after.subject_fingerprint == "0123456789abcdef"
    assert after.provenance == before.provenance


def test_nothing_is_overwritten_unless_forced(tmp_path):
    saved(tmp_path)
    with pytest.raises(OutputExistsError, match="must be new"):
        MAKERS["pca"]().save(tmp_path)
    assert load_decomposition(tmp_path).name == "TopK 24 (k=3)"
    MAKERS["pca"]().save(tmp_path, force=True)
    assert load_decomposition(tmp_path).name == "PCA 6"


def test_an_interrupted_folder_can_be_completed(tmp_path):
    saved(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CorruptFileError, match=r"must hold config\.json"):
        load_decomposition(tmp_path)
    saved(tmp_path)
    assert load_decomposition(tmp_path).width == 24


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    (saved(tmp_path) / name).unlink()
    with pytest.raises(CorruptFileError, match=f"must hold {name}; got none"):
        load_decomposition(tmp_path)


@pytest.mark.parametrize("cut", [1, 500])
def test_truncated_weights_are_refused(cut, tmp_path):
    path = saved(tmp_path) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CorruptFileError, match="must have the SHA-256"):
        load_decomposition(tmp_path)


def test_one_altered_byte_is_found(tmp_path):
    path = saved(tmp_path) / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"weights\.safetensors' must have the SHA-256"):
        load_decomposition(tmp_path)


def edit_config(folder, change):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_later_version_is_refused(tmp_path):
    edit_config(saved(tmp_path), lambda c: c.update(version=2))
    with pytest.raises(CorruptFileError, match=r"version 1; got .* version 2"):
        load_decomposition(tmp_path)


def test_another_programs_config_is_refused(tmp_path):
    edit_config(saved(tmp_path), lambda c: c.pop("format"))
    with pytest.raises(CorruptFileError, match="got None, version 1"):
        load_decomposition(tmp_path)


@pytest.mark.parametrize("key", ["reads", "provenance"])
def test_a_missing_key_is_named(key, tmp_path):
    edit_config(saved(tmp_path), lambda c: c.pop(key))
    with pytest.raises(CorruptFileError, match=f"must have the key '{key}'; got none"):
        load_decomposition(tmp_path)


def test_a_missing_entry_of_the_kind_is_named(tmp_path):
    edit_config(saved(tmp_path), lambda c: c["config"].pop("recipe"))
    with pytest.raises(CorruptFileError, match="the entry 'recipe'; got none"):
        load_decomposition(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(kind="dictionry"), "kind must be .* Did you mean 'dictionary'"),
        (lambda c: c["config"]["activation"].update(kind="topkk"), "sparsifier's kind .* 'topk'"),
        (lambda c: c["config"]["recipe"].update(kind="TopKK"), "recipe's kind .* 'TopK'"),
    ],
)
def test_unknown_kinds_are_named_with_near_misses(change, message, tmp_path):
    edit_config(saved(tmp_path), change)
    with pytest.raises(UnknownNameError, match=message):
        load_decomposition(tmp_path)
