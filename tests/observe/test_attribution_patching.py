"""Gradients against patching: exact where the model is linear, complete where it is not."""

import math

import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.observe.attribution_patching import agreement, attribute, integrated_gradients
from modelassay.observe.patching import patch
from modelassay.observe.patching_columns import everywhere
from modelassay.observe.patching_parts import Latents, Residue, Whole, heads_of, sites_of
from modelassay.subjects.hooked_transformer import load_modular_addition
from modelassay.subjects.site import Site
from modelassay.subjects.testing import D_MODEL, tiny_subject
from tests.observe.patching_cases import modular_addition_pairs, random_dictionary, random_pairs


@pytest.fixture(scope="module")
def subject():
    return tiny_subject("llama")


def test_where_the_rest_of_the_model_is_linear_both_are_exact(shared_data):
    # After its only block, the model without norms is a matrix.
    subject = load_modular_addition(shared_data / "modadd113")
    pairs = modular_addition_pairs(8)
    parts = [Whole(Site("mlp_out", 0)), Whole(Site("resid_post", 0))]
    true = patch(subject, pairs, parts)
    torch.testing.assert_close(
        attribute(subject, pairs, parts).values, true.values, rtol=1e-4, atol=1e-4
    )
    effects, checks = integrated_gradients(subject, pairs, parts)
    torch.testing.assert_close(effects.values, true.values, rtol=1e-4, atol=1e-4)
    assert [check.nodes for check in checks] == [4, 4]


def test_integrated_gradients_sum_to_the_difference(subject):
    pairs = random_pairs()
    effects, checks = integrated_gradients(
        subject, pairs, sites_of(subject, "resid_pre"), tolerance=0.01
    )
    for number, check in enumerate(checks):
        assert bool(check.complete.all())
        assert torch.equal(check.actual, effects.source - effects.target)
        torch.testing.assert_close(effects.values[number].sum(0), check.attributed)
        assert bool((check.gap.abs() <= 0.01 * check.actual.abs() + 1e-3).all())


def test_latents_and_the_error_sum_to_the_site(subject):
    pairs, site = random_pairs(), Site("resid_post", 0)
    dictionary = random_dictionary(12, D_MODEL, site)
    parts = [
        Whole(site),
        Residue(site, dictionary),
        *(Latents(site, dictionary, (latent,)) for latent in range(12)),
    ]
    for effects in (
        attribute(subject, pairs, parts),
        integrated_gradients(subject, pairs, parts)[0],
    ):
        torch.testing.assert_close(
            effects.values[1:].sum(0), effects.values[0], rtol=1e-3, atol=1e-4
        )


def test_too_few_nodes_are_marked_and_more_are_taken_until_they_suffice(subject):
    pairs = random_pairs()
    parts = [Whole(Site("resid_pre", 0))]
    _, (few,) = integrated_gradients(subject, pairs, parts, tolerance=1e-7, max_nodes=4)
    assert few.nodes == 4
    _, (many,) = integrated_gradients(subject, pairs, parts, tolerance=1e-7, max_nodes=64)
    assert many.nodes > 4
    assert many.gap.abs().max() < few.gap.abs().max()
    assert bool(many.complete.all())
    assert bool((few.complete == (few.gap.abs() <= 1e-7 * few.actual.abs() + 1e-3)).all())


@pytest.mark.parametrize("direction", ["denoising", "noising"])
def test_the_gradient_is_the_limit_of_small_steps(subject, direction):
    pairs, site = random_pairs(3), Site("resid_post", 0)
    estimated = attribute(subject, pairs, [Whole(site)], direction=direction).values[0].sum(0)
    ours, theirs = (
        (pairs.corrupt, pairs.clean) if direction == "denoising" else (pairs.clean, pairs.corrupt)
    )
    start = subject.run(ours, read=[site])
    step = subject.run(theirs, read=[site]).activations[site] - start.activations[site]

    def at(size):
        logits = subject.run(ours, edit={site: lambda x: x + size * step}).logits[:, -1].double()
        return (logits.gather(1, pairs.answers) - logits.gather(1, pairs.wrong))[:, 0]

    slope = (at(0.01) - at(-0.01)) / 0.02
    torch.testing.assert_close(estimated.double(), slope, rtol=0.05, atol=2e-3)


def test_unused_positions_are_attributed_nothing(subject):
    effects = attribute(subject, random_pairs(), [Whole(Site("resid_post", 1))])
    assert bool((effects.values[0, :-1] == 0).all())


def test_integrated_gradients_follow_patching_more_closely_than_the_gradient(shared_data):
    subject = load_modular_addition(shared_data / "modadd113")
    pairs = modular_addition_pairs()
    parts = [*(Whole(Site(r, 0)) for r in ("resid_pre", "attn_out", "mlp_out")), *heads_of(subject)]
    true = patch(subject, pairs, parts)
    gradient = agreement(attribute(subject, pairs, parts), true)
    effects, checks = integrated_gradients(subject, pairs, parts)
    integrated = agreement(effects, true)
    assert all(bool(check.complete.all()) for check in checks)
    assert gradient.n_cells == integrated.n_cells == 7
    assert integrated.pearson.low > gradient.pearson.high
    assert integrated.pearson.value > 0.99


def test_a_measurement_agrees_with_itself_and_not_with_its_negative(subject):
    pairs = random_pairs()
    effects = patch(subject, pairs, heads_of(subject), columns=[everywhere(pairs)])
    same = agreement(effects, effects)
    assert same.pearson.value == pytest.approx(1)
    assert same.spearman.low == pytest.approx(1)
    assert same.n_cells == 8


def test_what_cannot_be_computed_is_refused(subject):
    pairs = random_pairs(2)
    parts = [Whole(Site("resid_post", 0))]
    with pytest.raises(ValueRangeError, match="tolerance must be above 0 and max_nodes at least 4"):
        integrated_gradients(subject, pairs, parts, tolerance=0.0)
    one, two = (patch(subject, pairs, parts, columns=c) for c in (None, [everywhere(pairs)]))
    with pytest.raises(ShapeError, match="must be of the same parts, columns and pairs"):
        agreement(one, two)
    few = agreement(two, two)
    assert few.n_cells == 1
    assert math.isnan(few.pearson.value)
