"""Read and visible variance in models of any input, on a network whose readers are known."""

import pytest
import torch
from torch import nn

from modelassay.core.errors import ShapeError
from modelassay.decompositions.linear import Neurons
from modelassay.evidence.read_rows import read_rows
from modelassay.evidence.visible_rows import visible_rows
from modelassay.subjects.load import verified_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

D, N_READ = 6, 3


class Half(nn.Module):
    """Reads the first half of what passes through `trunk`."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.trunk = nn.Identity()
        self.gain = gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * self.trunk(x)[:, :N_READ]


def subject(gain: float = 1.0) -> Subject:
    return verified_subject("half", Half(gain), None, roles=False)


def inputs(count: int = 600) -> torch.Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(0))


NEURONS = Neurons(D, Site("module", path="trunk", port="out"))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_what_is_read_exceeds_its_controls_and_what_is_not_falls_short() -> None:
    x = inputs()
    found = read_rows(subject(), NEURONS, NEURONS.encode(x), x, generator=seeded())
    assert (found.low[:N_READ] > 0).all()
    assert (found.high[N_READ:] < 0).all()
    assert found.q_value is not None
    assert (found.q_value <= 0.05).all()
    assert found.n.eq(32).all()


def test_read_does_not_depend_on_the_outputs_unit() -> None:
    x = inputs()
    codes = NEURONS.encode(x)
    one, other = (
        read_rows(subject(gain), NEURONS, codes, x, generator=seeded()) for gain in (1.0, 50.0)
    )
    assert torch.allclose(one.value, other.value, atol=1e-3)


def test_only_the_latents_asked_for_are_measured() -> None:
    x = inputs()
    found = read_rows(
        subject(), NEURONS, NEURONS.encode(x), x, latents=torch.tensor([1]), generator=seeded()
    )
    assert (~found.value.isnan()).tolist() == [False, True, False, False, False, False]


def test_visible_variance_is_the_jacobians() -> None:
    x = inputs(2000)
    found = visible_rows(subject(), NEURONS, NEURONS.encode(x), x, generator=seeded())
    covariance = torch.cov(x.T, correction=0)
    unit = covariance.diagonal()[:N_READ].sum() / covariance.trace()
    assert torch.allclose(found.value[:N_READ], (1 / unit).expand(N_READ), rtol=0.1)
    assert found.value[N_READ:].eq(0).all()
    assert (found.low <= found.value).all()
    assert (found.high >= found.value).all()


def test_codes_of_other_inputs_are_refused() -> None:
    x = inputs()
    codes = NEURONS.encode(x[:10])
    with pytest.raises(ShapeError, match="one row per input, 600; got 10"):
        read_rows(subject(), NEURONS, codes, x, generator=seeded())
    with pytest.raises(ShapeError, match="one row per input, 600; got 10"):
        visible_rows(subject(), NEURONS, codes, x, generator=seeded())
