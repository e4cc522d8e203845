import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.evidence.stable import stable, stable_geometry

DOCUMENT = torch.arange(600) // 30


def random_values(seed: int, width: int = 6) -> torch.Tensor:
    rng = generator(seed)
    return torch.rand(600, width, generator=rng) * (torch.rand(600, width, generator=rng) < 0.2)


def test_what_a_second_seed_finds_again_is_stable():
    values = random_values(0)
    second = torch.cat([random_values(1)[:, :3], 2 * values[:, :3]], dim=1)
    evidence = stable(
        Codes.from_dense(values), Codes.from_dense(second), DOCUMENT, generator=generator(0)
    )
    torch.testing.assert_close(evidence.value[:3], torch.ones(3))
    assert (evidence.low[:3] > 0.99).all()
    assert (evidence.high[3:] < 0.4).all()
    assert (evidence.null < 0.2).all()


def test_cosines_match_the_definition_and_ignore_sign_length_and_order():
    mine = torch.randn(7, 16, generator=generator(0))
    theirs = torch.randn(9, 16, generator=generator(1))
    theirs[4] = -3 * mine[2]
    evidence = stable_geometry(mine, theirs, generator=generator(2))
    expected = [max(abs(float(torch.cosine_similarity(a, b, dim=0))) for b in theirs) for a in mine]
    assert evidence.value.tolist() == pytest.approx(expected, abs=1e-5)
    assert evidence.value[2] == pytest.approx(1)
    assert evidence.n.tolist() == [9] * 7


def test_the_null_knows_the_shared_subspace():
    # Both dictionaries lie in the same plane of 32 dimensions: cosines are high, and mean nothing.
    plane = torch.linalg.qr(torch.randn(32, 2, generator=generator(0))).Q.T
    mine = torch.randn(20, 2, generator=generator(1)) @ plane
    theirs = torch.randn(20, 2, generator=generator(2)) @ plane
    evidence = stable_geometry(mine, theirs, generator=generator(3))
    assert evidence.value.mean() > 0.95
    assert evidence.null.mean() > 0.95
    spread = torch.randn(20, 32, generator=generator(4))
    apart = stable_geometry(mine, spread, generator=generator(3))
    assert apart.null.mean() < 0.6
