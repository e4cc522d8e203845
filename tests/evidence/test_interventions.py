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


def test_samples_fire_are_eligible_and_lie_in_different_documents():
    drawn, table = draw(), values()
    assert (table[drawn.row, drawn.latent] != 0).all()
    assert (drawn.row % 100 < 50).all()
    for latent, expected in ((0, 12), (1, 12), (3, 3)):
        rows = drawn.row[drawn.latent == latent]
        assert len(rows) == expected
        assert len(DOCUMENT[rows].unique()) == expected
    assert not (drawn.latent == 2).any()  # a constant latent cannot be resampled


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


def test_the_table_has_a_row_a_latent():
    drawn = draw()
    table = drawn.table(drawn.change, 4)
    assert table.shape == (4, 12)
    assert table[2].isnan().all()
    assert (~table[3].isnan()).sum() == 3
    assert table[drawn.latent, drawn.slot].tolist() == drawn.change.tolist()


def test_nothing_to_draw_gives_an_empty_table():
    drawn = draw_interventions(
        Codes.from_dense(values()), DOCUMENT, torch.zeros(2000, dtype=torch.bool),
        torch.arange(4), 5, generator(0),
    )  # fmt: skip
    assert drawn.table(drawn.change, 4).isnan().all()


def test_without_latents_nothing_is_drawn():
    codes = Codes.from_dense(torch.eye(4))
    document = torch.arange(4)
    none = torch.zeros(0, dtype=torch.int64)
    drawn = draw_interventions(codes, document, document >= 0, none, 5, generator(0))
    assert len(drawn.row) == 0
    assert bool(drawn.table(drawn.change, 4).isnan().all())
