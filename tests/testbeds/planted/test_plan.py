"""A plan has halves to swap, and refuses what has none."""

import pytest

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.testbeds.planted.plan import DEFAULT_COUNTS, draw_plan


def test_a_plan_keeps_its_promises():
    plan = draw_plan(DEFAULT_COUNTS, (3, 4), generator(0))
    kinds = [feature.kind for feature in plan]
    assert {kind: kinds.count(kind) for kind in DEFAULT_COUNTS} == DEFAULT_COUNTS
    for number, feature in enumerate(plan):
        assert 0.15 <= feature.amplitude <= 0.25
        assert 1.5 <= feature.gain <= 4
        assert feature.reader in (3, 4)
        assert (0.001 <= feature.rate <= 0.002) == (feature.kind == "rare")
        assert (feature.partner >= 0) == (feature.kind == "combination")
        if feature.partner >= 0:
            partner = plan[feature.partner]
            assert partner.partner == number
            assert (partner.gain, partner.reader) == (feature.gain, feature.reader)


def test_an_unknown_kind_suggests():
    with pytest.raises(UnknownNameError, match="Did you mean 'combination'"):
        draw_plan({"combinations": 4}, (3,), generator(0))


@pytest.mark.parametrize(("kind", "count"), [("common", 3), ("combination", 6), ("rare", -2)])
def test_what_cannot_be_halved_is_refused(kind: str, count: int):
    with pytest.raises(ValueRangeError, match=f"The number of {kind} features must be a multiple"):
        draw_plan({kind: count}, (3,), generator(0))


def test_no_feature_at_all_is_refused():
    with pytest.raises(ValueRangeError, match="at least one planted feature; got none"):
        draw_plan({"common": 0}, (3,), generator(0))
