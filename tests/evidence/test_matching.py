import numpy as np
import pytest
import torch

from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.evidence.intervals import MIN_FIRINGS
from modelassay.evidence.matching import best_match, strongest

DOCUMENT = torch.arange(600) // 30


def random_values(seed: int, width: int = 8, rate: float = 0.2) -> torch.Tensor:
    rng = generator(seed)
    return torch.rand(600, width, generator=rng) * (torch.rand(600, width, generator=rng) < rate)


def test_correlations_match_numpy():
    mine, theirs = random_values(0), random_values(1) - 2 * random_values(0)
    match = best_match(Codes.from_dense(mine), Codes.from_dense(theirs), DOCUMENT, generator(0))
    table = np.corrcoef(mine.T.double().numpy(), theirs.T.double().numpy())[:8, 8:]
    np.testing.assert_allclose(match.correlation.numpy(), np.abs(table).max(1), rtol=1e-4)
    assert match.partner.tolist() == np.abs(table).argmax(1).tolist() == list(range(8))
    assert (match.interval.low <= match.correlation).all()
    assert (match.correlation <= match.interval.high).all()


def test_a_shuffled_dictionary_is_found_and_an_independent_one_is_chance():
    values = random_values(0)
    order = torch.randperm(8, generator=generator(2))
    copy = best_match(
        Codes.from_dense(values), Codes.from_dense(3 * values[:, order]), DOCUMENT, generator(0)
    )
    torch.testing.assert_close(copy.correlation, torch.ones(8))
    assert order[copy.partner].tolist() == list(range(8))
    other = best_match(
        Codes.from_dense(values), Codes.from_dense(random_values(1)), DOCUMENT, generator(0)
    )
    assert (other.correlation < 0.2).all()
    assert float((other.correlation - other.null).abs().max()) < 0.1
    assert (copy.null < 0.2).all()


def test_rare_partners_and_constant_latents_do_not_count():
    mine = random_values(0, width=2)
    mine[:, 1] = 0
    rare = torch.zeros(600, 2)
    rare[torch.nonzero(mine[:, 0])[: MIN_FIRINGS - 1, 0], 0] = 1
    match = best_match(Codes.from_dense(mine), Codes.from_dense(rare), DOCUMENT, generator(0))
    assert match.correlation[0] == 0
    assert match.correlation[1].isnan()


def test_strongest_takes_each_latents_best():
    mine = random_values(0)
    half = torch.cat([mine[:, :4], random_values(3)[:, :4]], dim=1)
    rest = torch.cat([random_values(4)[:, :4], mine[:, 4:]], dim=1)
    matches = [
        best_match(Codes.from_dense(mine), Codes.from_dense(other), DOCUMENT, generator(0))
        for other in (half, rest)
    ]
    torch.testing.assert_close(strongest(matches).correlation, torch.ones(8))
    assert strongest(matches).partner.tolist() == list(range(8))
    torch.testing.assert_close(
        strongest(matches).null, torch.maximum(matches[0].null, matches[1].null)
    )


def test_other_tokens_are_refused():
    codes = Codes.from_dense(random_values(0))
    with pytest.raises(ShapeError, match="must be of the same tokens; got 600 and 599"):
        best_match(codes, codes[:599], DOCUMENT, generator(0))
