import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.evidence.interventions import Interventions, draw_interventions

DOCUMENT = torch.arange(2000) // 100  # 20 documents


def values() -> torch.Tensor:
    """Four latents: sparse, dense, constant, and one that fires in three documents."""
    rng = generator(0)
    sparse = torch.rand(2000, generator=rng) * (torch.rand(2000, generator=rng) < 0.3)
    dense = torch.randn(2000, generator=rng)
    few = (DOCUMENT < 3) * (1 + torch.rand(2000, generator=rng))
    return torch.stack([sparse, dense, torch.ones(2000), few], dim=1)


def draw(samples_per_latent: int = 12, seed: int = 0) -> Interventions:
    return draw_interventions(
        Codes.from_dense(values()), DOCUMENT, torch.arange(2000) % 100 < 50, torch.arange(4),
        samples_per_latent, generator(seed),
    )  # fmt: skip


def test_samples_fire_are_eligible_and_are_spread_over_documents():
    drawn, table = draw(), values()
    assert (table[drawn.row, drawn.latent] != 0).all()
    assert (drawn.row % 100 < 50).all()
    assert (drawn.document == DOCUMENT[drawn.row]).all()
    for latent in (0, 1):
        assert len(drawn.document[drawn.latent == latent].unique()) == 12
    # Twelve samples from the three documents where the last latent fires: four of each.
    rows = drawn.row[drawn.latent == 3]
    assert torch.bincount(DOCUMENT[rows]).tolist() == [4, 4, 4]
    assert len(rows.unique()) == 12
    assert not (drawn.latent == 2).any()  # a constant latent cannot be resampled
    assert drawn.counts(4).tolist() == [12, 12, 0, 12]


def test_new_values_follow_the_latents_own_distribution():
    table = values()
    new = {0: [], 1: []}
    for seed in range(60):
        drawn = draw(samples_per_latent=20, seed=seed)
        for latent in new:
            own = drawn.latent == latent
            new[latent] += (table[drawn.row[own], latent] + drawn.change[own]).tolist()
    sparse = torch.tensor(new[0])
    share_of_zeros = float((sparse.abs() < 1e-6).float().mean())
    assert share_of_zeros == pytest.approx(float((table[:, 0] == 0).float().mean()), abs=0.04)
    dense = torch.tensor(new[1])
    assert float(dense.std()) == pytest.approx(float(table[:, 1].std()), abs=0.1)


def test_changes_are_never_negligible():
    drawn, table = draw(samples_per_latent=20), values()
    deviation = table.std(0, correction=0)
    assert (drawn.change.abs() > 0.099 * deviation[drawn.latent]).all()


def test_sums_by_document_match_a_loop():
    drawn = draw(samples_per_latent=50)
    table = drawn.by_document(drawn.change, 4)
    for latent in range(4):
        for document in range(20):
            own = (drawn.latent == latent) & (drawn.document == document)
            total = float(drawn.change[own].double().sum())
            assert table[document, latent] == pytest.approx(total, rel=1e-5)


def test_nothing_to_draw_gives_an_empty_table():
    drawn = draw_interventions(
        Codes.from_dense(values()), DOCUMENT, torch.zeros(2000, dtype=torch.bool),
        torch.arange(4), 5, generator(0),
    )  # fmt: skip
    assert drawn.by_document(drawn.change, 4).tolist() == [[0, 0, 0, 0]]
    assert drawn.counts(4).tolist() == [0, 0, 0, 0]
