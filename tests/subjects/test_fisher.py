import pytest
import torch

from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.evidence.predictions import kl_nats
from modelassay.subjects.fisher import score_gradients
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from tests.evidence.planted import tiny_llama

SITE = Site("resid_post", 0)

TOKENS = torch.tensor([[3, 7, 1, 12, 5], [9, 2, 4, 0, 0]])
MASK = torch.tensor([[True] * 5, [True, True, True, False, False]])


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject(tiny_llama(norms=True))


def exact_fisher(subject: Subject, context: int, token: int) -> torch.Tensor:
    """Sum over later positions of J^T (diag p - p p^T) J, in float64."""
    n = int(MASK[context].sum())
    downstream = subject.downstream(SITE, TOKENS[context, :n][None])

    def logits(at_token: torch.Tensor) -> torch.Tensor:
        x = torch.cat(
            [
                downstream.activation[0, :token],
                at_token[None],
                downstream.activation[0, token + 1 :],
            ]
        )
        run = downstream(x[None], gradients=True)
        assert run.logits is not None
        return run.logits[0]

    jacobian = torch.autograd.functional.jacobian(logits, downstream.activation[0, token]).double()
    p = logits(downstream.activation[0, token]).double().softmax(-1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("svd,svw,swe->de", jacobian[token:], inner[token:], jacobian[token:])


def test_gradients_second_moment_is_the_exact_fisher_matrix(subject: Subject):
    copies, draws = 400, 8
    _, gradients = score_gradients(
        subject,
        SITE,
        TOKENS.repeat(copies, 1),
        MASK.repeat(copies, 1),
        draws=draws,
        generator=generator(0),
    )
    n = copies * draws
    own = gradients.view(draws, copies, 2, 5, 12).flatten(0, 1).double()
    for context, token in ((0, 0), (0, 3), (1, 1)):
        expected = exact_fisher(subject, context, token)
        g = own[:, context, token]
        # Monte Carlo: the relative error of the whole matrix falls as 1 / sqrt(n).
        assert (g.T @ g / n - expected).norm() < 0.12 * expected.norm()
        assert g.mean(0).norm() < 4 * (expected.trace() / n).sqrt()


def test_nothing_flows_to_padding_or_from_it(subject: Subject):
    x, gradients = score_gradients(subject, SITE, TOKENS, MASK, draws=2, generator=generator(0))
    assert x.shape == (2, 5, 12)
    assert (gradients[:, 1, 3:] == 0).all()
    assert (gradients[:, 1, :3] != 0).any(-1).all()


def test_a_small_change_costs_what_the_metric_says(subject: Subject):
    downstream = subject.downstream(SITE, TOKENS[:1])
    change = 0.01 * torch.randn(12, generator=generator(1))
    moved = downstream.activation.clone()
    moved[0, 2] += change
    clean, edited = (downstream(x).logits for x in (downstream.activation, moved))
    assert clean is not None
    assert edited is not None
    kl = kl_nats(clean.log_softmax(-1), edited.log_softmax(-1)).sum()
    metric = exact_fisher(subject, 0, 2).float()
    assert float(change @ metric @ change / 2) == pytest.approx(float(kl), rel=0.05)


def test_a_site_with_more_than_a_vector_a_token_is_refused(subject: Subject):
    with pytest.raises(ShapeError, match=r"one vector a token; got \[2, 5, 3, 4\] at head_out"):
        score_gradients(subject, Site("head_out", 0), TOKENS, MASK, draws=1, generator=generator(0))
