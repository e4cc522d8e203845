"""Harvests: the definition, many sites in one pass, early exit, RAM = store, messages."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from modelassay.activations.corpus import Corpus, Document, tokenize
from modelassay.activations.harvest import Harvest, harvest, open_harvest
from modelassay.activations.pretokenised import corpus_from_tokens
from modelassay.core.errors import (
    NonFiniteError,
    ShapeError,
    TooFewTokensError,
    UnknownNameError,
    ValueRangeError,
)
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import FAMILIES, tiny_subject

SITES = ("resid_post.1", "head_out.0", "mlp_hidden.1")


@pytest.fixture(params=["RAM", "store", "memory"])
def harvested(
    request: pytest.FixtureRequest, subject: Subject, corpus: Corpus, tmp_path: Path
) -> Harvest:
    directory = {"RAM": None, "store": tmp_path / "store", "memory": f"memory://{tmp_path}"}
    return harvest(
        subject,
        corpus,
        SITES,
        directory=directory[request.param],
        context_tokens=24,
        batch_contexts=3,
        shard_bytes=24 * 56 * 4 * 3,
    )


def test_rows_are_the_activations_of_the_measured_tokens(
    harvested: Harvest, subject: Subject
) -> None:
    contexts = harvested.contexts
    assert harvested.sites == tuple(map(Site.parse, SITES))
    assert [harvested.width(site) for site in SITES] == [16, 16, 24]
    assert harvested.n_tokens == len(harvested.rows) == contexts.n_tokens
    places = []
    activations = {site: [] for site in harvested.sites}
    for context in range(len(contexts)):
        length = int(contexts.mask[context].sum())
        tokens = contexts.tokens[context : context + 1, :length]
        run = subject.run(tokens, read=harvested.sites)
        for position in range(length):
            if contexts.measured[context, position]:
                places.append([context, position])
                for site, values in run.activations.items():
                    activations[site].append(values[0, position].flatten())
    assert harvested.rows.tolist() == places
    for site, values in activations.items():
        torch.testing.assert_close(
            harvested.activations(site), torch.stack(values), rtol=1e-4, atol=1e-5
        )


def test_select_keeps_whole_documents(harvested: Harvest) -> None:
    documents = harvested.contexts.corpus.documents
    owner = harvested.contexts.document[harvested.rows[:, 0]]
    heldout = torch.tensor([documents[i].split == "heldout" for i in owner.tolist()])
    for split, rows in (("heldout", heldout), ("fit", ~heldout)):
        side = harvested.select(split)
        assert side.n_tokens == int(rows.sum()) == len(side.rows)
        for site in SITES:
            assert torch.equal(side.activations(site), harvested.activations(site)[rows])
        own = side.contexts.document[side.rows[:, 0]]
        assert torch.equal(own, owner[rows])
        assert side.select(split).n_tokens == side.n_tokens


def test_moments_are_those_of_all_rows(harvested: Harvest) -> None:
    side = harvested.select("fit")
    for site in SITES:
        rows = side.activations(site).double()
        moments = side.moments(site)
        torch.testing.assert_close(moments.mean, rows.mean(0))
        torch.testing.assert_close(moments.covariance, rows.T.cov(correction=0))
        assert moments.mean_norm == pytest.approx(float(rows.norm(dim=1).mean()))
        assert side.moments(site) is moments


def test_a_stream_deals_out_the_selected_rows(harvested: Harvest) -> None:
    side = harvested.select("heldout")
    stream = side.stream("resid_post.1", batch_tokens=1, generator=torch.Generator(), epochs=1)
    streamed = torch.cat(list(stream))
    rows = side.activations("resid_post.1")
    assert not torch.equal(streamed, rows)
    assert torch.equal(streamed[streamed[:, 0].argsort()], rows[rows[:, 0].argsort()])


def test_the_model_stops_behind_the_deepest_site(
    make_subject: Callable[[int], Subject], corpus: Corpus
) -> None:
    subject = make_subject(0)
    ran: list[int] = []
    for number, layer in enumerate(subject.module.model.layers):
        layer.register_forward_pre_hook(lambda *_args, number=number: ran.append(number))
    harvest(subject, corpus, ["resid_post.1", "attn_out.0"], batch_contexts=1000)
    assert set(ran) == {0, 1}
    ran.clear()
    harvest(subject, corpus, ["resid_pre.1"], batch_contexts=1000)
    assert set(ran) == {0}
    ran.clear()
    # Which of the two comes first is the block's affair: the block runs to its end.
    harvest(subject, corpus, ["mlp_out.0", "attn_out.0"], batch_contexts=1000)
    assert set(ran) == {0}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_harvested_up_to_several_sites_of_a_block(family: str) -> None:
    subject = tiny_subject(family)
    tokens = torch.randint(3, 60, (5, 12), generator=torch.Generator().manual_seed(0))
    sites = ["attn_out.1", "mlp_out.1", "resid_post.0"]
    made = harvest(subject, corpus_from_tokens(tokens, source="random"), sites, batch_contexts=2)
    run = subject.run(tokens, read=made.sites)
    for site in made.sites:
        torch.testing.assert_close(
            made.activations(site), run.activations[site].flatten(0, 1), rtol=1e-4, atol=1e-5
        )


def test_module_ports_are_harvested(subject: Subject, corpus: Corpus) -> None:
    port = "model.layers.1.mlp.act_fn:out"
    both = harvest(subject, corpus, [port, "resid_post.1"])
    expected = subject.run(both.contexts.tokens[:1], read=[Site.parse(port)])
    rows = int(both.contexts.measured[0].sum())
    torch.testing.assert_close(
        both.activations(port)[:rows],
        expected.activations[Site.parse(port)][0][both.contexts.measured[0]],
    )


def test_padding_and_batches_are_inert(subject: Subject, corpus: Corpus) -> None:
    small = harvest(subject, corpus, "resid_post.2", context_tokens=20, batch_contexts=1)
    large = harvest(subject, corpus, "resid_post.2", context_tokens=20, batch_contexts=50)
    torch.testing.assert_close(small.activations(), large.activations(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_store_keeps_the_type(
    subject: Subject, corpus: Corpus, tmp_path: Path, dtype: torch.dtype
) -> None:
    kept = harvest(subject, corpus, "resid_post.0", dtype=dtype, directory=tmp_path / "store")
    exact = harvest(subject, corpus, "resid_post.0")
    assert kept.activations().dtype == dtype
    assert torch.equal(kept.activations(), exact.activations().to(dtype))


def test_a_store_gives_back_the_corpus(subject: Subject, corpus: Corpus, tmp_path: Path) -> None:
    odd = Corpus(source="odd", documents=(*corpus.documents[:3], _odd_document()))
    made = harvest(subject, odd, "resid_post.0", directory=tmp_path / "store", context_tokens=16)
    opened = open_harvest(tmp_path / "store", subject)
    assert opened.contexts.corpus == odd
    assert opened.contexts.fingerprint() == made.contexts.fingerprint()
    assert torch.equal(opened.contexts.spans, made.contexts.spans)
    assert (opened.subject_name, opened.subject_fingerprint) == (
        subject.name,
        subject.fingerprint(),
    )


def _odd_document() -> Document:
    text = 'quote " \\ \u2028 \0 \N{PILE OF POO} and more words here'
    return Document(name="odd\udcff", text=text, split="fit")


def test_tokens_limits_what_is_run(subject: Subject, corpus: Corpus) -> None:
    some = harvest(subject, corpus, "resid_post.0", tokens=200, context_tokens=16)
    assert 200 <= some.n_tokens < 216
    again = harvest(subject, corpus, "resid_post.0", tokens=200, context_tokens=16)
    other = harvest(subject, corpus, "resid_post.0", tokens=200, context_tokens=16, seed=1)
    assert some.contexts.fingerprint() == again.contexts.fingerprint()
    assert some.contexts.fingerprint() != other.contexts.fingerprint()


class Recorder:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, int, str]] = []
        self.done = 0

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator["Recorder"]:
        self.tasks.append((description, total, unit))
        yield self

    def advance(self, amount: int, **numbers: float) -> None:
        self.done += amount

    def now(self, what: str) -> None:
        del what


def test_progress_counts_tokens(subject: Subject, corpus: Corpus) -> None:
    recorder = Recorder()
    made = harvest(subject, corpus, "resid_post.0", progress=recorder)
    assert recorder.tasks == [("Harvesting", made.n_tokens, "tokens")]
    assert recorder.done == made.n_tokens


@pytest.mark.parametrize(
    ("model", "layer"), [("stories260k", 2), ("babyllama105", 3), ("shakespeare_gpt2_char", 1)]
)
def test_real_models_give_their_reference_activations(
    shared_data: Path, model: str, layer: int
) -> None:
    subject = load_subject(shared_data / model)
    reference = load_file(shared_data / model / "reference.safetensors")
    tokens = reference["input_ids"].reshape(1, -1)
    made = harvest(subject, corpus_from_tokens(tokens, source="prompt"), f"resid_post.{layer}")
    expected = reference[f"hidden_states.{layer + 1}"].reshape(tokens.shape[1], -1)
    torch.testing.assert_close(made.activations(), expected, rtol=1e-4, atol=1e-4)


def test_not_a_number_is_refused_with_its_place(
    make_subject: Callable[[int], Subject], corpus: Corpus, tmp_path: Path
) -> None:
    subject = make_subject(0)
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=24)
    # A token that the model cannot read, once in the whole corpus.
    contexts.tokens[7, 5] = 256
    with torch.no_grad():
        subject.module.model.embed_tokens.weight[256] = float("inf")
    document = corpus.documents[int(contexts.document[7])].name
    message = rf"NaN or Inf at 'resid_pre\.0' in context 7, token 5 \(document '{document}'\)"
    for directory in (None, tmp_path / "store"):
        with pytest.raises(NonFiniteError, match=message):
            harvest(
                subject, contexts, "resid_pre.0", directory=directory, batch_contexts=2,
                shard_bytes=1,
            )  # fmt: skip
    # What was harvested before it is kept, and the store does not look whole.
    assert len(list((tmp_path / "store").glob("shard-*"))) == 3


def test_half_precision_that_overflows_is_refused(
    make_subject: Callable[[int], Subject], corpus: Corpus
) -> None:
    subject = make_subject(0)
    with torch.no_grad():
        subject.module.model.embed_tokens.weight[:] = 1e5
    harvest(subject, corpus, "resid_pre.0")
    with pytest.raises(NonFiniteError, match="keep its activations in float32"):
        harvest(subject, corpus, "resid_pre.0", dtype=torch.float16)


def test_sites_must_be_named_and_known(subject: Subject, corpus: Corpus) -> None:
    two = harvest(subject, corpus, ["resid_post.0", "resid_post.1"], tokens=50)
    with pytest.raises(ValueRangeError, match=r"got None for resid_post\.0, resid_post\.1"):
        two.activations()
    with pytest.raises(UnknownNameError, match=r"got 'resid_post\.2'. Did you mean"):
        two.activations("resid_post.2")
    assert torch.equal(two.activations(Site("resid_post", 1)), two.activations("resid_post.1"))
    with pytest.raises(UnknownNameError, match=r"resid_post\.9"):
        harvest(subject, corpus, "resid_post.9")
    with pytest.raises(ValueRangeError, match="At least one site must be named"):
        harvest(subject, corpus, [])
    with pytest.raises(ShapeError, match=r"one activation per token; got 'attn_pattern\.0'"):
        harvest(subject, corpus, "attn_pattern.0")


def test_impossible_settings_are_refused(subject: Subject, corpus: Corpus) -> None:
    with pytest.raises(ValueRangeError, match="at most the 64 that"):
        harvest(subject, corpus, "resid_post.0", context_tokens=65)
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=16)
    with pytest.raises(ValueRangeError, match="the corpus's own if it is tokenized; got 8"):
        harvest(subject, contexts, "resid_post.0", context_tokens=8)
    with pytest.raises(ValueRangeError, match="batch_contexts must be at least 1; got 0"):
        harvest(subject, corpus, "resid_post.0", batch_contexts=0)
    with pytest.raises(ValueRangeError, match="tokens must be at least 1; got 0"):
        harvest(subject, corpus, "resid_post.0", tokens=0)
    with pytest.raises(UnknownNameError, match=r"dtype must be one of: torch\.float32"):
        harvest(subject, corpus, "resid_post.0", dtype=torch.int64)
    with pytest.raises(TooFewTokensError, match="needs measured tokens; got none in 0 contexts"):
        harvest(subject, contexts[:0], "resid_post.0")
    module = load_subject(nn.Sequential(nn.Embedding(10, 4)))
    with pytest.raises(ValueRangeError, match="A corpus of texts needs a tokenizer"):
        harvest(module, corpus, "0:out")


def test_a_plain_module_is_harvested_on_given_tokens() -> None:
    module = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    subject = load_subject(module)
    tokens = torch.arange(10).reshape(2, 5)
    made = harvest(subject, corpus_from_tokens(tokens, source="numbers"), ["0:out", "1:out"])
    torch.testing.assert_close(made.activations("0:out"), module[0].weight.detach())
    assert made.width("1:out") == 3
