import torch

from modelassay.core.randomness import generator
from modelassay.evidence.surrogate import covariance_root, gaussian_surrogate, random_directions


def test_the_root_squares_to_the_matrix_even_when_it_is_singular():
    factor = torch.randn(6, 3, generator=generator(0), dtype=torch.float64)
    matrix = factor @ factor.T
    root = covariance_root(matrix)
    torch.testing.assert_close(root @ root, matrix)
    torch.testing.assert_close(root, root.T)


def test_noise_has_the_moments_and_nothing_else():
    rng = generator(1)
    x = torch.randn(20_000, 3, generator=rng).sign() @ torch.randn(3, 3, generator=rng) + 50
    noise = gaussian_surrogate(x, generator(2))
    torch.testing.assert_close(noise.mean(0), x.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(noise.T.cov(), x.T.cov(), atol=0.2, rtol=0.05)
    # x takes eight values; noise takes as many as it has rows.
    assert len(x.round(decimals=3).unique(dim=0)) == 8
    assert len(noise.round(decimals=3).unique(dim=0)) > 19_000


def test_random_directions_are_unit_and_point_where_the_data_vary():
    covariance = torch.diag(torch.tensor([100.0, 1.0, 0.0]))
    directions = random_directions(4000, covariance, generator(0))
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(4000))
    assert directions[:, 2].abs().max() < 1e-5
    # tan(angle to axis 0) is a tenth of a Cauchy variable: P(|cos| > 0.9) = 2/π atan(4.84) = 0.870.
    assert abs(float((directions[:, 0].abs() > 0.9).float().mean()) - 0.870) < 0.02
    assert abs(float(directions[:, 0].sign().mean())) < 0.05
