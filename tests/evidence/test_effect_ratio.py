from itertools import product

import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.evidence.effect_ratio import N_SWAPS, effect_ratio, swap_p_values


def effects(n_documents: int, n_latents: int, factor: float = 1.0, seed: int = 0):
    rng = generator(seed)
    mine, control = torch.randn(2, n_documents, n_latents, generator=rng).double().exp()
    return factor * mine, control


def test_the_p_value_is_that_of_all_exchanges():
    mine, control = effects(8, 3, factor=2.0)
    found = swap_p_values(mine, control, generator(1))
    for latent in range(3):
        pairs = torch.stack([mine[:, latent], control[:, latent]])
        observed = float((pairs[0].sum() / pairs[1].sum()).log().abs())
        as_large = 0
        for swap in product([0, 1], repeat=8):
            order = torch.tensor(swap)
            top = pairs[order, torch.arange(8)].sum()
            bottom = pairs[1 - order, torch.arange(8)].sum()
            as_large += float((top / bottom).log().abs()) >= observed - 1e-9
        assert float(found[latent]) == pytest.approx(as_large / 2**8, abs=0.02)


def test_under_the_null_p_values_are_as_small_as_they_should_be():
    mine, control = effects(30, 2000)
    p_values = swap_p_values(mine, control, generator(1))
    assert float((p_values <= 0.05).float().mean()) == pytest.approx(0.05, abs=0.015)
    assert float(p_values.mean()) == pytest.approx(0.5, abs=0.03)


def test_a_rare_but_large_effect_counts_where_a_median_would_not_see_it():
    mine, control = torch.full((40, 1), 0.01).double(), torch.ones(40, 1).double()
    mine[::4] = 50.0
    found = effect_ratio(mine, control, generator(0))
    assert float(found.value) == pytest.approx(float(torch.tensor(500.3 / 40).log()), rel=1e-3)
    assert float(found.interval.low) > 0
    assert float(found.p_value) < 0.01


def test_scale_does_not_matter_and_sides_change_sign():
    mine, control = effects(20, 5, factor=3.0)
    one = effect_ratio(mine, control, generator(0))
    scaled = effect_ratio(7 * mine, 7 * control, generator(0))
    turned = effect_ratio(control, mine, generator(0))
    assert torch.allclose(one.value, scaled.value)
    assert torch.allclose(one.value, -turned.value)
    assert torch.allclose(one.p_value, turned.p_value, atol=0.02)


def test_a_latent_without_samples_has_no_answer():
    mine, control = effects(10, 2)
    mine[:, 1] = control[:, 1] = 0
    found = effect_ratio(mine, control, generator(0))
    for values in (found.value, found.interval.low, found.interval.high, found.p_value):
        assert values.isnan().tolist() == [False, True]


def test_the_smallest_p_value_counts_the_data_themselves():
    mine, control = torch.full((40, 1), 9.0).double(), torch.ones(40, 1).double()
    assert float(swap_p_values(mine, control, generator(0))) == pytest.approx(1 / (N_SWAPS + 1))
