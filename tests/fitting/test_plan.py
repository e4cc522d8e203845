import pytest

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.decompositions.recipes import TopK
from modelassay.fitting.options import TrainingOptions
from modelassay.fitting.plan import Plan, default_learning_rate
from modelassay.fitting.schedules import Schedule
from modelassay.subjects.site import Site

RECIPE = TopK(width=64, k=4)


def plan(
    recipes: list[TopK] | None = None,
    tokens: int = 1000,
    batch_tokens: int = 100,
    learning_rate: float | None = None,
    seed: int | list[int] = 0,
    options: TrainingOptions | None = None,
) -> Plan:
    return Plan.of(
        [RECIPE] if recipes is None else recipes,
        site=Site.parse("resid_post.1"),
        tokens=tokens,
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        seed=seed,
        options=options or TrainingOptions(),
    )


def test_long_runs_have_the_rate_of_the_literature():
    assert default_learning_rate(2**14, 10**6) == pytest.approx(2e-4)
    assert default_learning_rate(2**16, 100_000) == pytest.approx(1e-4)


def test_short_runs_have_a_larger_rate_up_to_ten_times():
    assert default_learning_rate(2**14, 4000) == pytest.approx(1e-3)
    assert default_learning_rate(2**14, 1000) == pytest.approx(2e-3)
    assert default_learning_rate(2**14, 1) == pytest.approx(2e-3)


def test_one_seed_and_one_rate_serve_all_recipes():
    made = plan([RECIPE, RECIPE], seed=7, learning_rate=0.01)
    assert made.seeds == (7, 7)
    assert made.learning_rates == (0.01, 0.01)
    assert made.schedule.steps == 10


def test_default_rate_follows_each_width():
    made = plan([RECIPE, TopK(width=256, k=4)])
    assert made.learning_rates[0] == pytest.approx(2 * made.learning_rates[1])


@pytest.mark.parametrize("tokens", [0, 99])
def test_less_than_one_batch_is_refused(tokens: int):
    with pytest.raises(TooFewTokensError, match=f"one batch of 100 tokens; got tokens={tokens}"):
        plan(tokens=tokens)


def test_other_faults_are_named():
    with pytest.raises(ValueRangeError, match="at least one recipe; got none"):
        plan([])
    with pytest.raises(ValueRangeError, match=r"one per recipe \(1\); got 2 seeds"):
        plan(seed=[1, 2])
    with pytest.raises(ValueRangeError, match=r"learning_rate must be finite and above 0; got -1"):
        plan(learning_rate=-1.0)


def test_other_optimisers_have_a_rate_of_their_own_in_proportion_to_adams():
    adam, signum, muon = (
        default_learning_rate(1024, 500, name) for name in ("adam", "signum", "muon")
    )
    assert adam == default_learning_rate(1024, 500)
    assert signum == pytest.approx(0.2 * adam)
    assert muon == pytest.approx(1.5 * adam)
    made = plan(options=TrainingOptions(optimizer="signum"))
    assert made.learning_rates == (default_learning_rate(64, 10, "signum"),)


def test_options_are_part_of_the_plan_and_make_its_schedule():
    options = TrainingOptions(schedule="cosine", decay_share=0.5, initial_k=9)
    made = plan(options=options)
    assert made.as_json()["options"] == options.as_json()
    assert made.schedule == Schedule.of(10, options)
    assert plan().options == TrainingOptions()
