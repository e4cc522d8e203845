"""The tuned lens: zero is the logit lens, training lowers KL at every depth, files keep it."""

import pytest
import torch

from modelassay.activations.corpus import corpus_from_texts, read_texts, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.errors import (
    CorruptFileError,
    OutputExistsError,
    ProvenanceError,
    ShapeError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.core.files import write_tensors
from modelassay.core.randomness import generator
from modelassay.observe.lenses.lens import LogitLens
from modelassay.observe.lenses.load import load_lens
from modelassay.observe.lenses.quality import measure_lenses
from modelassay.observe.lenses.training import TunedLensRecipe, train_tuned_lens
from modelassay.observe.lenses.transfer import layer_transfer
from modelassay.observe.lenses.tuned import TunedLens
from modelassay.subjects.load import load_subject
from modelassay.subjects.testing import tiny_subject

QUICK = TunedLensRecipe(steps=12, tokens_per_step=1024)


@pytest.fixture(scope="module")
def bundled():
    return load_subject("bundled")


@pytest.fixture(scope="module")
def contexts(bundled):
    corpus = stdlib_corpus()
    documents = [d for d in corpus.documents if len(d.text) < 20_000][:80]
    small = corpus_from_texts(
        [d.text for d in documents], source="a part of it", names=[d.name for d in documents]
    )
    return tokenize(small, bundled.tokenizer, context_tokens=64)


@pytest.fixture(scope="module")
def trained(bundled, contexts):
    return train_tuned_lens(bundled, contexts.select("fit")[:400], recipe=QUICK)


def test_zeros_are_the_logit_lens_bit_for_bit():
    subject = tiny_subject("gpt2")
    lens = TunedLens.untrained(subject)
    resid = torch.randn(3, 5, 32, generator=generator(0))
    for depth in range(3):
        assert torch.equal(lens.translate(resid, depth), resid)


def test_the_map_is_affine_and_the_last_depth_the_identity():
    subject = tiny_subject()
    zero = TunedLens.untrained(subject)
    g = generator(1)
    weight, bias = torch.randn(2, 32, 32, generator=g), torch.randn(2, 32, generator=g)
    lens = TunedLens(weight=weight, bias=bias, header=zero.header)
    resid = torch.randn(4, 32, generator=g)
    expected = torch.stack([h + weight[1] @ h + bias[1] for h in resid])
    torch.testing.assert_close(lens.translate(resid, 1), expected)
    assert torch.equal(lens.translate(resid, 2), resid)
    with pytest.raises(ShapeError, match="must have 32 components here"):
        lens.translate(torch.zeros(2, 8), 0)
    with pytest.raises(ShapeError, match="one map for every depth but the last"):
        TunedLens(weight=weight[:1], bias=bias, header=zero.header)


def test_a_little_training_lowers_kl_at_every_depth_on_held_out_documents(
    bundled, contexts, trained
):
    heldout = contexts.select("heldout")
    logit, tuned = measure_lenses(bundled, [LogitLens(), trained], heldout[:60])
    assert trained.weight.isfinite().all()
    assert trained.bias.isfinite().all()
    before, after = logit.estimates("kl"), tuned.estimates("kl")
    assert (after.value[:-1] < before.value[:-1]).all()
    gain = tuned.difference(logit, "kl")
    assert (gain.value[:-1] < 0).all()
    assert float(after.value[-1]) < 1e-4


def test_a_second_real_model_is_read_better_at_every_depth(shared_data):
    subject = load_subject(shared_data / "shakespeare_gpt2_char")
    corpus = read_texts(shared_data / "text_tinyshakespeare" / "input.txt")
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=64)
    lens = train_tuned_lens(
        subject, contexts.select("fit"), recipe=TunedLensRecipe(steps=20, tokens_per_step=1024)
    )
    logit, tuned = measure_lenses(subject, [LogitLens(), lens], contexts.select("heldout")[:40])
    assert (tuned.estimates("kl").value[:-1] < logit.estimates("kl").value[:-1]).all()


def test_training_is_repeatable_and_resumes_bit_for_bit(tmp_path):
    subject = tiny_subject()
    contexts = tiny_contexts(subject)
    recipes = [
        TunedLensRecipe(steps=4, tokens_per_step=40),
        TunedLensRecipe(steps=4, tokens_per_step=40, optimizer="adam", loss="cross_entropy"),
    ]
    for recipe in recipes:
        folder = tmp_path / recipe.optimizer
        whole = train_tuned_lens(subject, contexts, recipe=recipe)
        with pytest.raises(KeyboardInterrupt):
            train_tuned_lens(
                subject, contexts, recipe=recipe, checkpoint=folder, checkpoint_steps=1,
                progress=StopsAfter(2),
            )  # fmt: skip
        resumed = train_tuned_lens(subject, contexts, recipe=recipe, checkpoint=folder)
        assert torch.equal(whole.weight, resumed.weight)
        assert torch.equal(whole.bias, resumed.bias)
        assert float(whole.weight.abs().max()) > 0
        with pytest.raises(ProvenanceError, match="seed was 0"):
            train_tuned_lens(subject, contexts, recipe=recipe, checkpoint=folder, seed=1)


def test_the_first_step_is_nesterovs_on_the_clipped_gradient():
    subject = tiny_subject()
    contexts = tiny_contexts(subject)
    # One step of all contexts: the gradient is that of the mean KL at the logit lens.
    recipe = TunedLensRecipe(steps=1, tokens_per_step=int(contexts.measured.sum()), clip=1e9)
    lens = train_tuned_lens(subject, contexts, recipe=recipe)
    zero = TunedLens.untrained(subject)
    bias = zero.bias.requires_grad_()
    total = torch.zeros(())
    run = subject.run(contexts.tokens, read=list(subject.sites()))
    final = run.logits.log_softmax(-1)
    for depth in range(2):
        site = next(s for s in run.activations if str(s) == ("resid_pre.0", "resid_post.0")[depth])
        with torch.enable_grad():
            read = subject.logits_of(zero.translate(run.activations[site], depth)).log_softmax(-1)
            total = total + (final.exp() * (final - read)).sum(-1).mean()
    slope = torch.autograd.grad(total, bias)[0]
    # Nesterov's first step: gradient + momentum · gradient, times the rate 1.0 · (1 - 0.9).
    torch.testing.assert_close(lens.bias, -0.1 * 1.9 * slope, rtol=1e-3, atol=1e-5)


def test_a_lens_comes_back_from_its_file(tmp_path, bundled, trained):
    path = tmp_path / "tuned.safetensors"
    trained.save(path)
    back = load_lens(path)
    assert isinstance(back, TunedLens)
    assert torch.equal(back.weight, trained.weight)
    assert torch.equal(back.bias, trained.bias)
    assert back.header == trained.header
    assert back.header.provenance.facts["steps"] == 12
    back.check(bundled)
    with pytest.raises(OutputExistsError, match="must not overwrite a file"):
        trained.save(path)
    with pytest.raises(ProvenanceError, match="Fit a lens for this model"):
        back.check(tiny_subject())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match="whole safetensors file"):
        load_lens(path)
    other = tmp_path / "other.safetensors"
    write_tensors(other, {"x": torch.ones(2)})
    with pytest.raises(CorruptFileError, match="must hold a fitted lens; got tensors x"):
        load_lens(other)


def test_every_map_reads_its_own_depth_best_but_near_ones_well(bundled, contexts, trained):
    matrix = layer_transfer(bundled, trained, contexts.select("heldout")[:10])
    assert matrix.shape == (6, 6)
    _, tuned = measure_lenses(bundled, [LogitLens(), trained], contexts.select("heldout")[:10])
    torch.testing.assert_close(
        matrix.diagonal(), tuned.estimates("kl").value[:-1], rtol=1e-3, atol=1e-4
    )
    assert float(matrix[0, 5]) > float(matrix[5, 5])


def test_quality_counts_documents_and_pairs_them(bundled, contexts):
    (quality,) = measure_lenses(bundled, [LogitLens()], contexts[:40])
    kl = quality.estimates("kl")
    assert (kl.low[:-1] <= kl.value[:-1]).all()
    assert (kl.value[:-1] <= kl.high[:-1]).all()
    assert quality.estimates("agreement").value[-1] == 1
    assert quality.difference(quality, "kl").high.abs().max() == 0
    with pytest.raises(UnknownNameError, match="'cross_entropy'"):
        quality.estimates("cross_entropi")
    (other,) = measure_lenses(bundled, [LogitLens()], contexts[40:60])
    with pytest.raises(ValueRangeError, match="the same documents"):
        quality.difference(other, "kl")
    (few,) = measure_lenses(bundled, [LogitLens()], contexts[contexts.document == 0][:3])
    assert few.estimates("kl").low.isnan().all()


def test_recipes_refuse_what_cannot_train():
    for wrong in ({"steps": 0}, {"tokens_per_step": 0}, {"clip": 0.0}, {"momentum": 1.0}):
        with pytest.raises(ValueRangeError, match="got"):
            TunedLensRecipe(**wrong)
    release = TunedLensRecipe()
    assert (release.steps, release.tokens_per_step, release.momentum) == (250, 262_144, 0.9)
    assert (release.weight_decay, release.clip) == (1e-3, 1.0)


def tiny_contexts(subject):
    class Words:
        bos_token_id = None

        def __call__(self, text, **_options):
            ids = [int(word) for word in text.split()]
            return {"input_ids": ids, "offset_mapping": [(i, i + 1) for i in range(len(ids))]}

    g = generator(5)
    draws = torch.randint(subject.vocab_size, (12, 10), generator=g).tolist()
    texts = [" ".join(map(str, draw)) for draw in draws]
    return tokenize(corpus_from_texts(texts, source="draws"), Words(), context_tokens=10)


class StopsAfter:
    """A progress that interrupts the work after some steps."""

    def __init__(self, steps):
        self.steps, self.done = steps, 0

    def task(self, description, *, total, unit):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None

    def advance(self, amount, **_numbers):
        self.done += amount
        if self.done > self.steps:
            raise KeyboardInterrupt

    def now(self, what):
        pass
