import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import ValueRangeError
from modelassay.fitting.dead_latents import DeadLatents, window_tokens


def test_window_is_ten_million_tokens_in_long_runs_and_a_tenth_of_short_ones():
    assert window_tokens(10**9) == 10_000_000
    assert window_tokens(2_000_000) == 200_000
    assert window_tokens(3) == 1


def test_latent_is_dead_after_the_window_and_alive_again_when_it_fires():
    latents = DeadLatents(3, window=20)
    only_latent_1 = torch.tensor([[0.5]]), torch.tensor([[1]])
    latents.record(*only_latent_1, tokens=10)
    assert latents.census().tolist() == []
    latents.record(*only_latent_1, tokens=10)
    assert latents.census().tolist() == [0, 2]
    latents.record(torch.tensor([[2.0]]), torch.tensor([[2]]), tokens=10)
    assert latents.census().tolist() == [0]
    assert latents.silence.tolist() == [30, 10, 0]


def test_selected_latent_with_value_zero_has_not_fired():
    latents = DeadLatents(2, window=10)
    latents.record(torch.tensor([[1.0, 0.0]]), torch.tensor([[0, 1]]), tokens=10)
    assert latents.census().tolist() == [1]


@given(st.integers(0, 2**20), st.integers(1, 4))
def test_dense_and_sparse_batches_count_alike_and_as_by_hand(seed: int, batches: int):
    generator = torch.Generator().manual_seed(seed)
    dense_count, sparse_count, by_hand = DeadLatents(7, 9), DeadLatents(7, 9), [0] * 7
    for _ in range(batches):
        z = torch.rand(4, 7, generator=generator).sub(0.7).clamp(min=0)
        values, indices = z.topk(5)
        dense_count.record(z, None, tokens=4)
        sparse_count.record(values, indices, tokens=4)
        for latent in range(7):
            fired = any(z[token, latent] > 0 for token in range(4) if latent in indices[token])
            by_hand[latent] = 0 if fired else by_hand[latent] + 4
    assert sparse_count.silence.tolist() == by_hand
    # At most five of seven latents fit into a token's slots, so dense may see more fire.
    assert (dense_count.silence <= sparse_count.silence).all()


def test_empty_window_is_refused():
    with pytest.raises(ValueRangeError, match="got 5 and 0"):
        DeadLatents(5, window=0)
