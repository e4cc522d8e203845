import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.evidence.predictions import final_residual, kl_nats, log_predictions
from modelassay.subjects.subject import Subject
from tests.evidence.planted import SITE


@given(st.integers(0, 1000), st.floats(1e-4, 3))
def test_kl_matches_the_definition_in_float64(seed: int, distance: float):
    rng = generator(seed)
    logits = 3 * torch.randn(4, 50, generator=rng)
    other = logits + distance * torch.randn(4, 50, generator=rng)
    p, q = logits.double().log_softmax(-1), other.double().log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)
    computed = kl_nats(logits.log_softmax(-1), other.log_softmax(-1))
    torch.testing.assert_close(computed.double(), expected, rtol=2e-2, atol=1e-10)


def test_kl_of_equals_is_zero_and_never_negative():
    logits = torch.randn(100, 30, generator=generator(0))
    log_p = logits.log_softmax(-1)
    assert (kl_nats(log_p, log_p) == 0).all()
    nudged = (logits + 1e-6 * torch.randn(100, 30, generator=generator(1))).log_softmax(-1)
    assert (kl_nats(log_p, nudged) > -1e-12).all()


def test_predictions_through_the_final_residual_are_the_models_own(subject: Subject):
    tokens = torch.randint(1, 23, (2, 9), generator=generator(0))
    downstream = subject.downstream(SITE, tokens)
    residual = final_residual(subject, downstream, downstream.activation)
    logits = subject.run(tokens).logits
    assert logits is not None
    torch.testing.assert_close(log_predictions(subject, residual), logits.log_softmax(-1))
    zeroed = final_residual(subject, downstream, torch.zeros_like(downstream.activation))
    assert not torch.allclose(zeroed, residual)
    assert pytest.approx(1, abs=1e-5) == float(log_predictions(subject, zeroed)[0, 0].exp().sum())
