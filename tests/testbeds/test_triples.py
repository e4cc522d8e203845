"""T9: two codes of one activation, the rules that choose, conformance, and a real run."""

from dataclasses import replace

import pytest
import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import generator
from modelassay.testbeds.conformance import conformance
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.scores import beyond_chance, discrimination
from modelassay.testbeds.testbed import Testbed
from modelassay.testbeds.triples import KINDS, build, dual
from modelassay.testbeds.triples_choices import agreements, ambiguous, observed
from modelassay.testbeds.triples_codes import (
    Choice,
    Planted,
    ValueHistograms,
    by_cost,
    by_encoder,
    plant,
)
from modelassay.testbeds.triples_inputs import separate_planes

ALPHAS = torch.tensor([0.5, 1.0, 3.0, -0.5])


@pytest.fixture(scope="module")
def testbed() -> Testbed:
    return build(0)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(ALPHAS, width=200, d=32, generator=generator(0))


def test_everything_conforms():
    for check in conformance(KINDS[0]):
        assert check.passed, check


def test_every_known_number_is_reproduced(testbed):
    known = testbed.known()
    assert len(known) == 33
    for number in known:
        assert number.reproduced, number


def test_both_codes_decode_to_the_same_activation(planted):
    rows = planted.directions[planted.members]
    one, other = (torch.einsum("tm,tmd->td", code, rows) for code in planted.codes())
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert all(bool(((code > 0).sum(1) == 2).all()) for code in planted.codes())


def test_l1_prefers_the_first_code_exactly_for_positive_alpha(planted):
    first, second = planted.codes()
    prefers = first.sum(1) < second.sum(1)
    assert prefers.tolist() == (planted.alphas > 0).tolist()
    assert prefers.tolist() == (planted.alphas + planted.norms > 1).tolist()


@pytest.mark.parametrize("generating", ["first", "second"])
def test_ambiguous_activations_have_two_exact_codes(planted, generating):
    tokens = ambiguous(planted, 300, generating, generator(1))
    assert float(tokens.errors.max()) < 1e-10
    for code in (tokens.first, tokens.second):
        assert bool(((code > 0).sum(1) == 2).all())
    assert tokens.generated.unique().tolist() == [0 if generating == "first" else 1]


def test_description_length_needs_peaked_values(planted):
    found = {
        peaked: agreements(planted, "second", generator(2), count=500, peaked=peaked)["MDL"]
        for peaked in (True, False)
    }
    assert found[True]["alpha > 0"] > 0.95
    assert found[False]["alpha > 0"] < 0.7


def test_the_encoder_prefers_what_lies_nearest_whatever_generated_it(planted):
    for generating, positive in (("first", 1.0), ("second", 0.0)):
        found = agreements(planted, generating, generator(3), count=500)["encoder"]
        assert found["resolved"] < 1
        assert found["alpha > 0"] == pytest.approx(positive, abs=0.2)


def test_ties_choose_nothing_and_count_one_half():
    choice = by_cost(torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))
    assert choice.chosen.tolist() == [0, 1, -1, -1]
    assert choice.resolved == 0.5
    assert choice.agreement(torch.zeros(4, dtype=torch.long)) == 0.5
    assert Choice(chosen=torch.tensor([1])).agreement(torch.tensor([1])) == 1


def test_the_encoder_chooses_by_the_two_largest():
    members = torch.eye(3).expand(3, 3, 3)
    activations = torch.tensor([[2.0, 1, 0], [2, 0, 1], [0, 1, 2]])
    assert by_encoder(activations, members).chosen.tolist() == [0, 1, -1]


def test_histograms_give_back_the_probabilities_they_were_drawn_from():
    draw = generator(4)
    on = torch.rand(40_000, 1, generator=draw) < 0.25
    high = torch.rand(40_000, 1, generator=draw) < 0.2
    values = torch.where(high, 2.05, 1.05) * on
    histograms = ValueHistograms.of(values, 3.0)
    codes = torch.tensor([[1.05], [2.05], [0.0]])
    bits = histograms.bits(codes, torch.zeros(3, 1, dtype=torch.long))
    expected = -torch.tensor([0.25 * 0.8, 0.25 * 0.2, 0.75]).log2()
    torch.testing.assert_close(bits.float(), expected, atol=0.05, rtol=0)


def test_what_was_observed_peaks_at_the_generating_code(planted):
    bits = {
        generating: observed(planted, generating, generator(5)).bits(
            torch.cat(planted.codes()), planted.members.repeat(2, 1)
        )
        for generating in ("first", "second")
    }
    assert bool((bits["first"][:4] < bits["first"][4:]).all())
    assert bool((bits["second"][:4] > bits["second"][4:]).all())


def test_a_covector_of_the_dual_reads_one_member_alone():
    planted = separate_planes(generator(6))
    first, second = (planted.directions[planted.members[:, i]] for i in (0, 1))
    covectors = dual(first, second)
    read = covectors @ planted.directions.T
    assert torch.allclose(read[:, planted.members[:, 0]], torch.eye(8), atol=1e-5)
    assert float(read[:, planted.members[:, 1]].abs().max()) < 1e-5
    assert float(read[:, planted.members.numel() :].abs().max()) < 1e-5


def test_the_arms_read_different_amounts_of_the_same_pair(testbed):
    # f1 and f2 of triple 2 (alpha 3), both with value 1; slots of (latent, value).
    pair = torch.tensor([[[2.0, 1.0], [8 + 2.0, 1.0]]])
    through_f2, through_f3 = (arm.output(None, pair)[0, 2] for arm in testbed.arms)
    assert float(through_f2) == pytest.approx(1, abs=1e-5)
    assert float(through_f3) == pytest.approx(1 + 3, abs=1e-5)


def test_data_have_two_to_eight_active_latents(testbed):
    counts = (testbed.arms[0].data[..., 1] > 0).sum(1)
    assert int(counts.min()) >= 2
    assert int(counts.max()) == 8


def test_a_method_that_sees_activations_alone_is_at_chance(testbed):
    size = replace(testbed.size, tokens=30_000)
    for name in ("topk", "pca"):
        found = METHODS[name].make(testbed.arms[0], size, 0)
        table = [testbed.affinities(found) for _ in testbed.arms]
        assert beyond_chance(discrimination(table), 2) == pytest.approx(0)
        own = testbed.own_scores(testbed.arms[0], found)
        assert set(own) == {"members", "near_triples", "first_code"}
        if name == "pca":  # orthogonal directions lie in no plane of two others
            assert own["near_triples"] == pytest.approx(-0.01)
        else:
            assert len(testbed.draw({"topk": found})[1].marks) == 3


def test_alphas_and_widths_that_cannot_be_are_refused():
    with pytest.raises(ValueRangeError, match=r"alpha must be above -1; got -1\."):
        plant(torch.tensor([0.5, -1.0]), width=10, d=4, generator=generator(0))
    with pytest.raises(ValueRangeError, match=r"width must be at least 6.*; got 5"):
        plant(torch.tensor([0.5, 1.0]), width=5, d=4, generator=generator(0))
