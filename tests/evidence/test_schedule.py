import torch
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.randomness import generator
from modelassay.evidence.schedule import grouped


@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 1000))
def test_every_sample_runs_once_in_its_own_context_with_enough_tokens(
    n_samples: int, n_contexts: int, seed: int
):
    rng = generator(seed)
    context = torch.randint(n_contexts, (n_samples,), generator=rng)
    needed = torch.randint(1, 100, (n_samples,), generator=rng)
    seen: list[int] = []
    for group in grouped(context, needed, context_tokens=80):
        assert len(group.contexts.unique()) == len(group.contexts)
        for each in group.rounds:
            samples, places = each.samples, each.places
            assert group.contexts[places].tolist() == context[samples].tolist()
            assert len(places.unique()) == len(places)  # two edits in one text would meet
            assert (needed[samples].clamp(max=80) <= group.n_tokens).all()
            seen += samples.tolist()
    assert sorted(seen) == list(range(n_samples))


def test_little_is_computed_in_vain():
    rng = generator(0)
    context = torch.randint(100, (5000,), generator=rng)
    needed = torch.randint(1, 129, (5000,), generator=rng)
    places = used = 0
    for group in grouped(context, needed, context_tokens=256):
        places += len(group.contexts) * len(group.rounds)
        used += sum(len(each.samples) for each in group.rounds)
    assert used == 5000
    assert places < 1.4 * used
