"""A lens over one text, against its definition in slow loops."""

import math

import pytest
import torch
from transformers import AutoTokenizer

from modelassay.activations.corpus import corpus_from_texts, tokenize
from modelassay.core.errors import (
    ProvenanceError,
    ShapeError,
    TooFewTokensError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.observe.lenses.lens import LogitLens, check_depth, depth_names, depth_sites
from modelassay.observe.lenses.reading import lens_reading, tokens_of
from modelassay.observe.lenses.streams import check_last, read_streams
from modelassay.observe.lenses.tuned import TunedLens
from modelassay.subjects.load import load_subject
from modelassay.subjects.testing import tiny_model, tiny_subject

TOKENS = torch.randint(67, (9,), generator=generator(0))
FAMILIES = ("llama", "gpt2", "gemma2", "cohere", "opt")  # plain, biases, capped, scaled, projected


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request):
    return tiny_subject(request.param)


@torch.no_grad()
def test_every_measure_is_its_definition(subject):
    (reading,) = lens_reading(subject, [LogitLens()], TOKENS, count=5)
    streams = read_streams(subject, TOKENS[None])
    final = streams.logits[0].double().softmax(-1)
    for depth, resid in enumerate(streams.resid):
        for t in range(len(TOKENS)):
            p = subject.logits_of(resid[0, t]).double().softmax(-1)
            entropy = -sum(v * math.log(v) for v in p.tolist())
            pairs = zip(final[t].tolist(), p.tolist(), strict=True)
            kl = sum(f * math.log(f / v) for f, v in pairs)
            assert float(reading.entropy[depth, t]) == pytest.approx(entropy, abs=1e-4)
            assert float(reading.kl[depth, t]) == pytest.approx(kl, abs=1e-4)
            assert reading.top[depth, t].tolist() == p.topk(5).indices.tolist()
            torch.testing.assert_close(
                reading.top_probabilities[depth, t].double(), p.topk(5).values, rtol=1e-4, atol=1e-6
            )
            if t + 1 < len(TOKENS):
                target = int(TOKENS[t + 1])
                assert float(reading.cross_entropy[depth, t]) == pytest.approx(
                    -math.log(p[target]), abs=1e-4
                )
                assert int(reading.rank[depth, t]) == int((p > p[target]).sum())


def test_the_last_depth_is_the_model(subject):
    (reading,) = lens_reading(subject, [LogitLens()], TOKENS)
    assert float(reading.kl[-1].max()) < 1e-4
    logits = subject.run(TOKENS[None]).logits[0]
    assert torch.equal(reading.top[-1, :, 0], logits.argmax(-1))


def test_the_last_token_has_no_target_and_depths_have_names():
    (reading,) = lens_reading(tiny_subject(), [LogitLens()], TOKENS)
    assert reading.cross_entropy[:, -1].isnan().all()
    assert (reading.rank[:, -1] == -1).all()
    assert not reading.cross_entropy[:, :-1].isnan().any()
    assert reading.depths == depth_names(2) == ("embedding", "0", "1")
    assert reading.texts == tuple(str(token) for token in TOKENS.tolist())


def test_streams_are_those_before_the_norm():
    subject = tiny_subject("gpt2")
    streams = read_streams(subject, TOKENS[None])
    run = subject.run(TOKENS[None], read=depth_sites(subject))
    assert torch.equal(streams.resid[-1], run.activations[depth_sites(subject)[-1]])
    normed = subject.final_norm(streams.resid[-1])
    assert not torch.allclose(normed, streams.resid[-1])  # so a second norm would be noticed
    torch.testing.assert_close(subject.logits_of(streams.resid[-1]), streams.logits)


def test_a_last_depth_that_gives_other_logits_is_refused():
    subject = tiny_subject()
    logits = read_streams(subject, TOKENS[None]).logits[0]
    check_last(subject, logits + 1e-6, logits)
    for wrong in (logits + 0.1, logits * torch.nan):
        with pytest.raises(UnsupportedModelError, match="must reproduce the model's logits"):
            check_last(subject, wrong, logits)


def test_several_lenses_read_in_one_pass():
    subject = tiny_subject()
    untrained = TunedLens.untrained(subject)
    one, other = lens_reading(subject, [LogitLens(), untrained], TOKENS)
    assert (one.lens, other.lens) == ("logit", "tuned")
    assert torch.equal(one.kl, other.kl)
    assert torch.equal(one.top_probabilities, other.top_probabilities)


def test_a_count_above_the_vocabulary_shows_all_of_it():
    (reading,) = lens_reading(tiny_subject(), [LogitLens()], TOKENS, count=1000)
    assert reading.top.shape == (3, 9, 67)
    torch.testing.assert_close(reading.top_probabilities.sum(-1), torch.ones(3, 9))


def test_the_real_character_model_is_read(shared_data):
    subject = load_subject(shared_data / "babyllama105")
    (reading,) = lens_reading(subject, [LogitLens()], "Once upon a time", count=3)
    assert reading.texts[1:] == tuple(" Once upon a time")  # as its tokenizer begins a text
    # The model goes on with ",", and does not know so before its first block.
    assert reading.top_texts[int(reading.top[-1, -1, 0])] == ","
    assert float(reading.kl[0].mean()) > float(reading.kl[-2].mean())
    assert float(reading.cross_entropy[-1, :-1].mean()) < 2.5


def test_bad_input_is_refused():
    subject = tiny_subject()
    with pytest.raises(ValueRangeError, match="needs a tokenizer; got the subject"):
        lens_reading(subject, [LogitLens()], "text")
    with pytest.raises(ValueRangeError, match="Token ids must be from 0 to 66; got 3 to 67"):
        lens_reading(subject, [LogitLens()], torch.tensor([3, 67]))
    with pytest.raises(ShapeError, match="at least one"):
        lens_reading(subject, [LogitLens()], torch.tensor([], dtype=torch.long))
    with pytest.raises(ValueRangeError, match="at most 32 tokens; got 33"):
        lens_reading(subject, [LogitLens()], torch.zeros(33, dtype=torch.long))
    with pytest.raises(ValueRangeError, match=r"from 0 \(before the first block\) to 2; got 3"):
        check_depth(3, 2)
    with pytest.raises(ProvenanceError, match="Fit a lens for this model"):
        lens_reading(subject, [TunedLens.untrained(tiny_subject("llama", seed=1))], TOKENS)
    lens = TunedLens.untrained(subject)
    shallow = TunedLens(weight=lens.weight[:1], bias=lens.bias[:1], header=lens.header)
    with pytest.raises(ProvenanceError, match=r"1 layers of width 32; got 'Llama.*with 2 of 32"):
        shallow.check(subject)


def test_a_model_without_roles_is_refused():
    bare = load_subject(tiny_model("llama"), roles=False)
    with pytest.raises(UnsupportedModelError, match="A lens needs a language model whose roles"):
        lens_reading(bare, [LogitLens()], TOKENS)


def test_an_empty_text_is_refused_and_no_offsets_are_needed(shared_data):
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "babyllama105")
    subject = load_subject(shared_data / "babyllama105", tokenizer=WithoutOffsets(tokenizer))
    with pytest.raises(TooFewTokensError, match="at least one token; got ''"):
        tokens_of(subject, "")
    corpus = corpus_from_texts(["a text"], source="here")
    with pytest.raises(ValueRangeError, match="as fast tokenizers do; got WithoutOffsets"):
        tokenize(corpus, subject.tokenizer, context_tokens=16)
    assert len(tokens_of(subject, "abc")) == 5  # after the BOS token and a space


class WithoutOffsets:
    """A slow tokenizer: it refuses to say where its tokens stand."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.bos_token_id = tokenizer.bos_token_id

    def __call__(self, text, **options):
        assert "return_offsets_mapping" not in options
        return self.tokenizer(text, **options)
