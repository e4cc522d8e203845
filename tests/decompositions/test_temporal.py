"""What a temporal dictionary promises of its codes, and its folders."""

import dataclasses

import pytest
import torch

from modelassay.core.errors import (
    CorruptFileError,
    NonFiniteError,
    OutputExistsError,
    ShapeError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.decompositions.linear import Neurons
from modelassay.decompositions.recipe_temporal import Temporal
from modelassay.decompositions.sparsifiers import BatchTopKActivation, TopKActivation
from modelassay.decompositions.storage import load_decomposition
from modelassay.decompositions.temporal import TemporalDictionary
from modelassay.decompositions.temporal_attention import ContextAttention
from modelassay.decompositions.temporal_storage import load_temporal
from modelassay.subjects.site import Site

D, WIDTH, K = 6, 32, 3
SITE = Site("resid_post", 2)
RECIPE = Temporal(width=WIDTH, k=K, heads=2, bottleneck=4)


def build(seed=0, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    return recipe.build(torch.ones(D), 0.25, generator(seed), SITE)


def draw(contexts=3, tokens=7, seed=1):
    return 3 * torch.randn(contexts, tokens, D, generator=generator(seed)) + 1


def slow_codes(dictionary, context):
    """The definition, in float64, token by token and head by head."""
    with torch.no_grad():
        W_dec, b = dictionary.W_dec.double(), dictionary.b_dec.double()
        W_enc = W_dec.T if dictionary.W_enc is None else dictionary.W_enc.double()
        residual = dictionary.input_scale * context.double() - b
        predicted = torch.zeros(len(context), dictionary.width, dtype=torch.float64)
        for layer in dictionary.attn_layers:
            z = (residual @ W_enc / (4 * D)).relu()
            apply = lambda m, v: m.weight.double() @ v + m.bias.double()  # noqa: E731
            after = residual.clone()
            for t in range(len(context)):
                earlier = [torch.zeros(dictionary.width, dtype=torch.float64), *z[:t]]
                q = apply(layer.q_target, z[t]).chunk(dictionary.heads)
                k = [apply(layer.k_ctx, e).chunk(dictionary.heads) for e in earlier]
                v = [apply(layer.v_ctx, e).chunk(dictionary.heads) for e in earlier]
                heads = []
                for h in range(dictionary.heads):
                    scores = torch.stack([q[h] @ key[h] for key in k]) / len(q[h]) ** 0.5
                    weights = scores.softmax(0)
                    heads.append(sum(w * value[h] for w, value in zip(weights, v, strict=True)))
                code = apply(layer.c_proj, torch.cat(heads)).relu()
                p = code @ W_dec
                s = (p @ residual[t]) / (p.norm() + 1e-6) ** 2
                predicted[t] += s * code
                after[t] = residual[t] - s * p
            residual = after
        novel = (residual @ W_enc / (4 * D)).relu()
        if isinstance(dictionary.activation, TopKActivation):
            novel[novel < novel.topk(K, dim=1).values[:, -1:]] = 0
        return predicted, novel


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"layers": 2}], ids=str)
def test_codes_are_those_of_the_definition(changes):
    dictionary = build(**changes)
    x = draw()
    codes = dictionary.encode_contexts(x)
    for number, context in enumerate(x):
        predicted, novel = slow_codes(dictionary, context)
        torch.testing.assert_close(
            codes.predicted[number].double(), predicted, atol=1e-5, rtol=1e-4
        )
        found = codes.novel.dense().unflatten(0, (3, 7))[number]
        torch.testing.assert_close(found.double(), novel, atol=1e-5, rtol=1e-4)


def test_what_is_predicted_is_orthogonal_to_what_it_leaves():
    dictionary = build()
    x = draw()
    codes = dictionary.encode_contexts(x)
    predicted = dictionary.decode_predicted(codes)
    left = x - dictionary.bias - predicted
    assert predicted[:, 1:].norm(dim=2).min() > 0.01
    # Up to the 1e-6 that is added to a direction's length.
    assert torch.cosine_similarity(predicted, left, dim=2).abs().max() < 1e-3


def test_the_reconstruction_is_the_sum_of_its_parts():
    dictionary = build()
    x = draw()
    codes = dictionary.encode_contexts(x)
    parts = dictionary.decode_predicted(codes) + dictionary.decode_novel(codes)
    assert torch.equal(dictionary(x), parts + dictionary.bias)
    total = codes.predicted + codes.novel.dense().view_as(codes.predicted)
    torch.testing.assert_close(dictionary(x), total @ dictionary.directions + dictionary.bias)


def test_a_code_depends_on_earlier_tokens_alone():
    dictionary = build()
    x = draw(contexts=1)
    later, earlier = x.clone(), x.clone()
    later[0, 5:] += 1
    earlier[0, 0] += 1
    before = dictionary.encode_contexts(x)
    assert torch.allclose(
        dictionary.encode_contexts(later).predicted[0, :5], before.predicted[0, :5]
    )
    changed = dictionary.encode_contexts(earlier).predicted[0]
    assert not torch.allclose(changed[6], before.predicted[0, 6], atol=1e-4)


def test_nothing_predicts_a_first_token_without_biases():
    codes = build().encode_contexts(draw())
    assert (codes.predicted[:, 0] == 0).all()
    assert (codes.predicted[:, 1] != 0).any(1).all()


def test_padding_changes_no_code_and_has_none():
    dictionary = build()
    x = draw(contexts=2)
    mask = torch.arange(9) < torch.tensor([[7], [4]])
    padded = torch.nn.functional.pad(x, (0, 0, 0, 2), value=5.0)
    padded[1, 4:] = float("nan")
    codes = dictionary.encode_contexts(padded, mask)
    alone = dictionary.encode_contexts(x[1:, :4])
    torch.testing.assert_close(codes.predicted[1, :4], alone.predicted[0])
    novel = codes.novel.dense().unflatten(0, (2, 9))
    torch.testing.assert_close(novel[1, :4], alone.novel.dense())
    assert not codes.predicted[1, 4:].any()
    assert not novel[1, 4:].any()


def test_novel_codes_are_at_most_k_and_positive():
    novel = build().encode_contexts(draw()).novel
    assert (novel.l0() <= K).all()
    assert (novel.values >= 0).all()


def test_the_scale_of_the_activations_is_the_dictionarys_own():
    x = draw()
    small = RECIPE.build(torch.ones(D), 0.25, generator(0))
    large = RECIPE.build(1024 * torch.ones(D), 0.25 / 1024, generator(0))
    assert torch.allclose(
        large.encode_contexts(1024 * x).predicted, small.encode_contexts(x).predicted
    )
    assert torch.allclose(large(1024 * x), 1024 * small(x), rtol=1e-4, atol=1e-2)


def test_an_untied_encoder_starts_as_the_decoders_transpose():
    tied, untied = build(), build(tied=False)
    assert tied.tied
    assert not untied.tied
    assert torch.equal(untied.W_enc, tied.W_dec.t())


@pytest.mark.parametrize("changes", [{}, {"tied": False, "layers": 2}], ids=str)
def test_a_folder_gives_the_same_dictionary_back(changes, tmp_path):
    dictionary = build(**changes)
    dictionary.subject_fingerprint = "abc"
    dictionary.save(tmp_path / "saved")
    read = load_temporal(tmp_path / "saved")
    x = draw()
    assert torch.equal(read(x), dictionary(x))
    assert (read.name, read.reads, read.subject_fingerprint) == (dictionary.name, SITE, "abc")
    assert read.input_scale == dictionary.input_scale
    with pytest.raises(OutputExistsError, match="must be new"):
        dictionary.save(tmp_path / "saved")


def test_folders_of_the_two_kinds_are_not_taken_for_each_other(tmp_path):
    build().save(tmp_path / "temporal")
    with pytest.raises(UnknownNameError, match="temporal_dictionary"):
        load_decomposition(tmp_path / "temporal")
    Neurons(D, SITE).save(tmp_path / "neurons")
    with pytest.raises(CorruptFileError, match="must hold a temporal_dictionary; got a neurons"):
        load_temporal(tmp_path / "neurons")


def test_what_cannot_be_encoded_is_refused():
    dictionary = build()
    x = draw()
    with pytest.raises(ShapeError, match="pass whole contexts"):
        dictionary.encode_contexts(x[0])
    with pytest.raises(ShapeError, match="mask must have the shape"):
        dictionary.encode_contexts(x, torch.ones(3, 6, dtype=torch.bool))
    with pytest.raises(ValueRangeError, match="Padding must stand at the end"):
        dictionary.encode_contexts(x, torch.arange(7).expand(3, 7) > 0)
    x[2, 3, 1] = float("inf")
    with pytest.raises(NonFiniteError, match="in context 2"):
        dictionary.encode_contexts(x)


def test_parts_that_do_not_fit_are_refused():
    W, b, k = torch.zeros(WIDTH, D), torch.zeros(D), TopKActivation(K)
    with pytest.raises(ShapeError, match=r"W_dec, b_dec and W_enc must have the shapes"):
        TemporalDictionary(W_dec=W, b_dec=b, W_enc=W, activation=k, heads=2, bottleneck=4)
    with pytest.raises(ValueRangeError, match="look at each token alone"):
        TemporalDictionary(
            W_dec=W, b_dec=b, activation=BatchTopKActivation(K), heads=2, bottleneck=4
        )
    with pytest.raises(ValueRangeError, match="layers and input_scale must be above 0"):
        TemporalDictionary(W_dec=W, b_dec=b, activation=k, heads=2, bottleneck=4, input_scale=0.0)
    with pytest.raises(ValueRangeError, match="multiple of heads"):
        ContextAttention(WIDTH, heads=3, bottleneck=4)
    for changes, message in [
        ({"layers": 0}, "layers must be at least 1"),
        ({"k": 0}, "k must be between 1"),
        ({"bottleneck": 64}, "width must be a multiple of heads"),
    ]:
        with pytest.raises(ValueRangeError, match=message):
            build(**changes)
