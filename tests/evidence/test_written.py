import pytest
import torch
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.written import written
from tests.evidence.planted import bare_harvest, random_contexts

COPY, TRIGRAM, POSITION, HALF, CONTEXT, SELDOM = range(6)


def planted_codes(harvest: Harvest) -> Codes:
    """Latents of known kinds: what each is a function of is its name."""
    context, position = harvest.rows.unbind(1)
    tokens = torch.nn.functional.pad(harvest.contexts.tokens, (2, 0), value=-1)
    now, before, first = (tokens[context, position + 2 - k] for k in range(3))
    table = 1 + torch.rand(9, generator=generator(5))
    noise = torch.randn(len(context), generator=generator(len(context)))
    # A hash of every token so far: a function of the long context that no short table can hold.
    long = torch.zeros(harvest.contexts.tokens.shape)
    state = torch.zeros(len(long), dtype=torch.int64)
    for t in range(long.shape[1]):
        state = (state * 31 + harvest.contexts.tokens[:, t] * 17 + 7) % 10_007
        long[:, t] = (state * 7919 % 1000) / 1000
    copy = table[now] * (now % 2 == 0)
    columns: list[Tensor] = [
        copy,
        table[(now + 3 * before + 5 * first) % 9],
        (position % 4 == 0).float() * 2,
        table[now] + table.std() * noise,
        long[context, position] * (long[context, position] > 0.6),
        (torch.arange(len(context)) == 3).float(),
    ]
    return Codes.from_dense(torch.stack(columns, dim=1))


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    contexts = random_contexts(n_documents=60, contexts_each=6, n_tokens=64, vocab=9)
    harvest = bare_harvest(contexts)
    fit, heldout = harvest.select("fit"), harvest.select("heldout")
    return written(planted_codes(fit), fit, planted_codes(heldout), heldout, generator=generator(0))


def test_what_the_tokens_give_is_not_written(evidence: Evidence):
    for latent in (COPY, TRIGRAM, POSITION):
        assert abs(float(evidence.value[latent])) < 0.03
        assert evidence.high[latent] < 0.05


def test_what_takes_the_whole_context_is_written(evidence: Evidence):
    assert evidence.value[CONTEXT] == pytest.approx(1, abs=0.03)
    assert evidence.low[CONTEXT] > 0.95
    assert evidence.null[CONTEXT] == pytest.approx(1, abs=0.03)


def test_half_a_latent_is_half_written(evidence: Evidence):
    table = 1 + torch.rand(9, generator=generator(5))
    # Tokens 1 … 8 are drawn alike; the noise has the variance of the whole table.
    signal, noise = float(table[1:].var(correction=0)), float(table.var())
    assert evidence.value[HALF] == pytest.approx(noise / (signal + noise), abs=0.05)
    assert evidence.low[HALF] < evidence.value[HALF] < evidence.high[HALF]


def test_too_few_firings_are_not_measured(evidence: Evidence):
    assert evidence.value[SELDOM].isnan()
    assert evidence.low[SELDOM].isnan()
    assert evidence.n[SELDOM] == 1


def test_codes_of_another_harvest_are_refused():
    harvest = bare_harvest(random_contexts(n_documents=2, contexts_each=1, n_tokens=12, vocab=9))
    codes = planted_codes(harvest)
    with pytest.raises(ShapeError, match="one row per harvested token"):
        written(codes, harvest, codes[:5], harvest, generator=generator(0))
