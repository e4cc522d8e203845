import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.evidence.activity import (
    code_statistics,
    firings_by_document,
    latent_activity,
    too_thin,
)
from modelassay.evidence.intervals import MIN_DOCUMENTS, MIN_FIRINGS


def sparse_values(seed: int, n: int = 400) -> torch.Tensor:
    """Six latents: never, rare, some, some, dense, always."""
    rng = generator(seed)
    rates = torch.tensor([0.0, 0.01, 0.05, 0.08, 0.4, 1.0])
    return (torch.rand(n, 6, generator=rng) < rates) * (0.5 + torch.rand(n, 6, generator=rng))


def test_statistics_match_counting():
    values, noise = sparse_values(0), sparse_values(1)
    document = torch.arange(400) // 20
    evidence = code_statistics(
        Codes.from_dense(values), Codes.from_dense(noise), document, generator(0)
    )
    l0, dead, dense = evidence
    for each, of in ((0, values), (1, noise)):
        part = "value" if each == 0 else "null"
        active = of != 0
        assert getattr(l0, part)[0] == pytest.approx(float(active.sum(1).float().mean()))
        assert getattr(dead, part)[0] == pytest.approx(float((~active.any(0)).float().mean()))
        assert getattr(dense, part)[0] == pytest.approx(
            float((active.float().mean(0) > 0.1).float().mean())
        )
    for one in evidence:
        assert one.low[0] <= one.value[0] <= one.high[0]
    assert l0.low[0] < l0.high[0]


def test_rates_and_strengths_match_counting():
    values = sparse_values(0)
    document = torch.arange(400) // 20
    codes = Codes.from_dense(values)
    rate, mean = latent_activity(codes, codes, document, generator(0))
    active = values != 0
    torch.testing.assert_close(rate.value, active.float().mean(0))
    torch.testing.assert_close(rate.null, rate.value)
    assert (rate.low <= rate.value).all()
    assert (rate.value <= rate.high).all()
    thin = too_thin(firings_by_document(codes, document))
    assert thin.tolist() == [True, True, True, False, False, False]
    assert mean.value[thin].isnan().all()
    torch.testing.assert_close(mean.value[~thin], (values.sum(0) / active.sum(0))[~thin])
    assert mean.n.tolist() == active.sum(0).tolist()


def test_many_firings_in_few_documents_are_thin():
    firings = torch.zeros(20, 2, dtype=torch.float64)
    firings[: MIN_DOCUMENTS - 1, 0] = 10 * MIN_FIRINGS
    firings[:MIN_DOCUMENTS, 1] = MIN_FIRINGS
    assert too_thin(firings).tolist() == [True, False]
