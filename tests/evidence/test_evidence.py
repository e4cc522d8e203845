import math

import pytest
import torch

from modelassay.core.errors import ShapeError
from modelassay.evidence.evidence import Evidence, single


def evidence(scope: str, n: int, **more: torch.Tensor) -> Evidence:
    numbers = torch.arange(n, dtype=torch.float32)
    return Evidence(
        name="made_up", title="Made up", scope=scope, value=numbers, low=numbers - 1,
        high=numbers + 1, null=torch.zeros(n), null_description="nothing", n=torch.full((n,), 7),
        unit="share", better="higher", definition="made up", **more,
    )  # fmt: skip


def test_one_latents_numbers():
    assert evidence("latent", 3).at(2) == {"value": 2, "low": 1, "high": 3, "null": 0, "n": 7}
    with_p = evidence("latent", 2, p_value=torch.tensor([0.5, math.nan]), q_value=torch.ones(2))
    assert with_p.at(0)["p_value"] == 0.5
    assert math.isnan(with_p.at(1)["p_value"])
    assert with_p.at(1)["q_value"] == 1


def test_a_decomposition_has_one_value():
    assert evidence("decomposition", 1).at()["value"] == 0
    with pytest.raises(ShapeError, match="must have a single value; got 2"):
        evidence("decomposition", 2)


def test_single_is_a_vector_of_one():
    assert single(0.25).tolist() == [0.25]
