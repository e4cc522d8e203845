import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.evidence.learned import learned

DOCUMENT = torch.arange(600) // 30


def random_values(seed: int, width: int = 6) -> torch.Tensor:
    rng = generator(seed)
    return torch.rand(600, width, generator=rng) * (torch.rand(600, width, generator=rng) < 0.2)


def test_what_an_untrained_twin_has_too_is_not_learned():
    values = random_values(0)
    values[:, 5] = 0
    values[:3, 5] = 1  # too rare for any claim
    twins = {
        "reinitialised": Codes.from_dense(torch.cat([values[:, :2], random_values(1)], dim=1)),
        "permuted": Codes.from_dense(torch.cat([values[:, 2:3], random_values(2)], dim=1)),
    }
    evidence = learned(Codes.from_dense(values), twins, DOCUMENT, generator=generator(0))
    assert [e.name for e in evidence] == [
        "null_twin_match", "null_twin_match:reinitialised", "null_twin_match:permuted",
    ]  # fmt: skip
    over_all, first, second = evidence
    torch.testing.assert_close(over_all.value[:3], torch.ones(3))
    assert (over_all.value[3:5] < 0.2).all()
    assert over_all.value[5].isnan()
    torch.testing.assert_close(first.value[:2], torch.ones(2))
    assert first.value[2] < 0.2
    assert second.value[2] == pytest.approx(1)
    assert (over_all.null[:5] < 0.2).all()
    assert over_all.better == "lower"


def test_no_twins_is_refused():
    with pytest.raises(ValueRangeError, match="at least one null twin"):
        learned(Codes.from_dense(random_values(0)), {}, DOCUMENT, generator=generator(0))
