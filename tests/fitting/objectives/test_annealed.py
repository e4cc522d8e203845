"""The power that falls, and the coefficient that keeps the penalty's size."""

from itertools import pairwise

import pytest
import torch

from modelassay.core.randomness import generator
from modelassay.decompositions.batch import BatchCodes
from modelassay.decompositions.recipes import AnnealedL1, ReLUL1
from modelassay.fitting.objectives.annealed import AnnealedPower
from modelassay.fitting.objectives.l1 import L1
from modelassay.fitting.objectives.objective import Forward, StatefulObjective

D, WIDTH, TOKENS, VARIANCE = 5, 12, 20, 3.0
SMALLEST = 1e-3


def forward_of(
    progress: float, seed: int = 0, sparsity_factor: float = 1.0, prefixes: tuple[int, ...] = ()
) -> Forward:
    dictionary = ReLUL1(width=WIDTH).build(D, D, torch.zeros(D), generator(1), None)
    x = torch.randn(TOKENS, D, generator=generator(seed))
    values = (3 * torch.randn(TOKENS, WIDTH, generator=generator(seed + 1))).relu()
    return Forward(
        dictionary=dictionary,
        activations=x,
        codes=BatchCodes(values=values.requires_grad_()),
        reconstruction=torch.zeros(TOKENS, D),
        total_variance=VARIANCE,
        dead=torch.zeros(0, dtype=torch.int64),
        sparsity_factor=sparsity_factor,
        progress=progress,
        prefixes=prefixes,
    )


def power_sum(forward: Forward, p: float) -> float:
    """mean_t Σ_i (z |d|)^p by hand, each value shifted by ε."""
    norms = forward.dictionary.W_dec.detach().double().norm(dim=1)
    weighted = forward.values.detach().double() * norms
    return float(((weighted + SMALLEST) ** p - SMALLEST**p).sum()) / TOKENS


def penalty(p_steps: int = 4, coefficient: float = 2.0) -> AnnealedPower:
    return AnnealedPower(
        coefficient=coefficient, p_end=0.2, p_steps=p_steps, start_share=0.2, end_share=0.8
    )


@pytest.mark.parametrize("prefixes", [(), (3, WIDTH)])
def test_it_begins_as_l1(prefixes: tuple[int, ...]):
    forward = forward_of(0.0, sparsity_factor=0.3, prefixes=prefixes)
    found = penalty()(forward)
    assert float(found.detach()) == pytest.approx(float(L1(coefficient=2.0)(forward).detach()))


def test_p_falls_in_equal_steps_over_its_share_of_the_run():
    term, seen = penalty(), []
    for step in range(100):
        term(forward_of(step / 100, seed=step))
        seen.append(term.p)
    assert seen[:20] == [1.0] * 20
    assert seen[20] == pytest.approx(0.8)
    assert seen[80:] == [pytest.approx(0.2)] * 20
    assert sorted(set(seen), reverse=True) == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert seen == sorted(seen, reverse=True)


def test_the_penalty_stays_equal_in_the_mean_of_the_last_ten_steps():
    term = penalty()
    for step in range(20):
        term(forward_of(step / 100, seed=step))
    recent = [forward_of(0.0, seed=step) for step in range(10, 20)]
    ratio = sum(power_sum(f, 1.0) for f in recent) / sum(power_sum(f, 0.8) for f in recent)
    forward = forward_of(0.2, seed=77)
    expected = 2.0 * ratio * power_sum(forward, 0.8) / VARIANCE
    assert float(term(forward).detach()) == pytest.approx(expected, rel=1e-4)
    assert term.p == pytest.approx(0.8)


def test_on_equal_batches_the_penalty_never_changes():
    term = penalty()
    found = [float(term(forward_of(step / 100)).detach()) for step in range(100)]
    assert found == pytest.approx([found[0]] * 100, rel=1e-4)


def test_gradients_are_finite_where_values_are_0():
    term = penalty(p_steps=1)
    term(forward_of(0.0))
    forward = forward_of(0.9)
    term(forward).backward()
    gradient = forward.values.grad
    assert term.p == pytest.approx(0.2)
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.count_nonzero() > 0
    # A small value is asked for more than a large one.
    positive = forward.values.detach()[:, 0] > 0
    order = forward.values.detach()[positive, 0].argsort()
    assert (gradient[positive, 0][order].diff() < 0).all()


def test_no_active_latent_leaves_the_coefficient_as_it_is():
    term = penalty()
    for step in range(60):
        forward = forward_of(step / 60)
        forward.values.data.zero_()
        assert float(term(forward).detach()) == 0
    assert float(term.state()["coefficient"]) == 2.0


def test_its_state_goes_on_in_another():
    assert isinstance(penalty(), StatefulObjective)
    assert not isinstance(L1(coefficient=1.0), StatefulObjective)
    one, other = penalty(), penalty()
    for step in range(47):
        one(forward_of(step / 100, seed=step))
    other.load_state(one.state())
    for step in range(47, 100):
        forward = forward_of(step / 100, seed=step)
        assert torch.equal(one(forward), other(forward))
    assert other.p == pytest.approx(0.2)


def test_a_short_run_takes_one_step_down_at_a_time():
    term = penalty(p_steps=10)
    seen = []
    for step in range(8):
        term(forward_of(step / 8))
        seen.append(term.falls)
    assert max(b - a for a, b in pairwise(seen)) == 1


def test_the_recipe_refuses_powers_that_do_not_fall():
    for wrong in ({"p_end": 1.5}, {"p_steps": 0}):
        with pytest.raises(ValueError, match="p_end must be at most 1 and p_steps at least 1"):
            AnnealedL1(width=8, **wrong)
    with pytest.raises(ValueError, match=r"must ascend within 0 and 1; got 0\.9 and 0\.2"):
        AnnealedL1(width=8, start_share=0.9, end_share=0.2)
