"""Knock-off dictionaries: what each level keeps and loses."""

import pytest
import torch

from modelassay.core.errors import ShapeError, UnknownNameError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.geometry.knockoffs import (
    KNOCKOFFS,
    Original,
    clusters_of,
    coactivation,
    knockoff,
)


def gram(directions: torch.Tensor) -> torch.Tensor:
    return directions @ directions.T


def original(seed: int = 0) -> Original:
    """Six clusters of five latents in R^16, codes in which clusters are active together."""
    g = generator(seed)
    clusters = torch.arange(6).repeat_interleave(5)
    directions = torch.randn(6, 16, generator=g)[clusters] + 0.7 * torch.randn(30, 16, generator=g)
    together = torch.rand(2000, 6, generator=g)[:, clusters] < 0.3
    values = together * (torch.rand(2000, 30, generator=g) < 0.8).float()
    lengths = 0.5 + torch.rand(30, 1, generator=g)
    return Original.of(directions * lengths, Codes.from_dense(values), clusters)


@pytest.mark.parametrize("level", KNOCKOFFS)
def test_lengths_are_kept_and_seeds_decide(level):
    made = original()
    found = knockoff(level, made, generator(1))
    torch.testing.assert_close(found.norm(dim=1), made.directions.norm(dim=1))
    assert torch.equal(found, knockoff(level, made, generator(1)))
    assert not torch.equal(found, knockoff(level, made, generator(2)))


def test_a_rotation_keeps_all_products_and_random_directions_keep_none():
    made = original()
    real = gram(made.directions)
    rotated = knockoff("K1", made, generator(1))
    torch.testing.assert_close(gram(rotated), real, atol=1e-4, rtol=0)
    assert not torch.allclose(rotated, made.directions, atol=0.1)
    upper = torch.triu_indices(30, 30, offset=1).unbind()
    random = gram(knockoff("K0", made, generator(1)))
    assert abs(float(torch.corrcoef(torch.stack([random[upper], real[upper]]))[0, 1])) < 0.2


def test_co_activation_is_mirrored_where_the_dimension_suffices():
    latents = Original.of(torch.randn(8, 20), Codes.from_dense(torch.rand(500, 8)))
    unit = torch.nn.functional.normalize(knockoff("K2", latents, generator(0)), dim=1)
    torch.testing.assert_close(gram(unit), latents.coactivation, atol=1e-4, rtol=0)


def test_clusters_keep_their_mean_cosine_and_nothing_else():
    made = original()
    unit = torch.nn.functional.normalize
    real, found = (
        gram(unit(d, dim=1)) for d in (made.directions, knockoff("K3", made, generator(3)))
    )
    same = (made.clusters[:, None] == made.clusters) & ~torch.eye(30, dtype=torch.bool)
    assert float(found[same].mean()) == pytest.approx(float(real[same].mean()), abs=0.1)
    assert abs(float(found[made.clusters[:, None] != made.clusters].mean())) < 0.1


def test_exchanging_keeps_each_clusters_vectors():
    made = original()
    unit = torch.nn.functional.normalize
    found = unit(knockoff("K4", made, generator(0)), dim=1)
    real = unit(made.directions, dim=1)
    for cluster in range(6):
        members = made.clusters == cluster
        cosines = found[members] @ real[members].T
        assert torch.equal(cosines.argmax(1).sort().values, torch.arange(5))
        assert float(cosines.amax(1).min()) > 0.999


def test_random_signs_keep_the_means_roughly_and_change_the_rest():
    made = original()
    found = knockoff("K5", made, generator(0))
    means = torch.stack([found[made.clusters == c].mean(0) for c in range(6)])
    real = torch.stack([made.directions[made.clusters == c].mean(0) for c in range(6)])
    assert float(torch.cosine_similarity(means, real).min()) > 0.8
    assert not torch.allclose(found, made.directions, atol=0.1)


def test_clusters_are_found_by_linkage():
    directions = torch.eye(4).repeat_interleave(3, 0) + 0.1 * torch.randn(
        12, 4, generator=generator(0)
    )
    found = clusters_of(directions)
    assert len(found.unique()) == 4
    assert torch.equal(found.reshape(4, 3), found.reshape(4, 3)[:, :1].expand(4, 3))


def test_co_activation_matches_corrcoef_and_is_zero_for_a_constant():
    values = torch.rand(100, 3, generator=generator(0)).relu()
    values[:, 2] = 1
    found = coactivation(Codes.from_dense(values))
    torch.testing.assert_close(found[:2, :2], torch.corrcoef(values[:, :2].T), atol=1e-5, rtol=0)
    assert (found[2] == 0).all()


def test_a_latent_that_correlates_with_none_gets_a_random_place():
    values = torch.rand(100, 3, generator=generator(0))
    values[:, 2] = 0
    made = Original.of(torch.eye(3), Codes.from_dense(values), torch.zeros(3).long())
    assert knockoff("K2", made, generator(0)).norm(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_bad_requests_are_refused():
    with pytest.raises(UnknownNameError, match=r"must be one of: K0, .* got 'K7'"):
        knockoff("K7", original(), generator(0))
    with pytest.raises(ShapeError, match=r"must be \[2\] and \[2, 2\] for 2 directions"):
        Original(directions=torch.eye(2), clusters=torch.zeros(3).long(), coactivation=torch.eye(2))
    with pytest.raises(ValueRangeError, match="got 3, 1 of them zero"):
        clusters_of(torch.diag(torch.tensor([1.0, 1, 0])))
