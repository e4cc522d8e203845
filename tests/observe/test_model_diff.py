"""Base against tuned: nothing between twins, and what was planted between others."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from modelassay.core.errors import ProvenanceError, ShapeError, TooFewTokensError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.observe.contrast_documents import Responses
from modelassay.observe.model_diff import model_change, raised_responses
from modelassay.observe.model_diff_matching import match_directions
from modelassay.observe.model_diff_scaling import ScalingSums, latent_scaling

DOCUMENTS, UNITS = 60, 200


def made(means, rates):
    return Responses(
        groups=np.arange(len(means)), names=tuple(f"d{i}" for i in range(len(means))),
        classes=np.zeros(len(means), dtype=np.int64), tokens=np.full(len(means), 50),
        means=means, rates=rates,
    )  # fmt: skip


def base_and_tuned(seed=0):
    """Noise between the models, but units 0-4 appear, 5-9 vanish and 10-14 grow."""
    draw = np.random.default_rng(seed)
    rates = draw.uniform(0.1, 0.3, size=(DOCUMENTS, UNITS))
    other = np.clip(rates + 0.02 * draw.normal(size=rates.shape), 0, 1)
    rates[:, :5], other[:, :5] = 0.001, 0.2
    rates[:, 5:10], other[:, 5:10] = 0.2, 0.001
    rates[:, -1] = other[:, -1] = 0
    means, changed = 2 * rates, 2 * other
    changed[:, 10:15] += 0.5 * draw.uniform(size=(DOCUMENTS, 5))
    return made(means, rates), made(changed, other)


def test_two_identical_models_give_nothing_at_all():
    base, _ = base_and_tuned()
    same = model_change(base, base, generator(0))
    assert (same.p_value == 1).all()
    assert not same.significant.any()
    assert set(same.kinds) == {"unchanged", "silent"}
    raised = raised_responses(base, base, np.arange(DOCUMENTS) < 30, generator(0))
    assert len(raised.discovered) == 0
    assert (raised.q_value == 1).all()


def test_planted_changes_are_found_and_named():
    base, tuned = base_and_tuned()
    found = model_change(base, tuned, generator(0))
    assert found.kinds[:15] == ("appeared",) * 5 + ("vanished",) * 5 + ("stronger",) * 5
    assert found.kinds[-1] == "silent"
    others = np.flatnonzero(found.significant[15:])
    assert len(others) <= 4  # 5 % of some twenty discoveries, and chance
    assert sorted(found.of_kind("appeared").tolist()) == [0, 1, 2, 3, 4]
    assert ((found.low <= found.change) & (found.change <= found.high)).all()
    back = model_change(tuned, base, generator(0))
    np.testing.assert_allclose(back.change, -found.change)
    assert back.kinds[:5] == ("vanished",) * 5


def test_models_that_differ_by_noise_alone_hardly_ever_differ():
    any_found = 0
    for seed in range(30):
        draw = np.random.default_rng(seed)
        rates = draw.uniform(0.1, 0.3, size=(20, 40))
        means = draw.normal(size=(2, 20, 40))
        found = model_change(
            made(means[0], rates), made(means[1], rates), generator(seed), n_permutations=999
        )
        any_found += bool(found.significant.any())
    assert any_found <= 5  # P(more than 5 of 30 at 5 %) < 0.01


def test_a_response_that_grows_everywhere_is_not_raised_for_chosen_prompts():
    draw = np.random.default_rng(1)
    rates = np.full((80, 50), 0.2)
    means = draw.normal(size=(80, 50))
    changed = means + 0.2 * draw.normal(size=means.shape)
    chosen = np.arange(80) % 2 == 0
    changed[:, 0] += 2.0
    changed[chosen, 1] += 2.0
    found = raised_responses(made(means, rates), made(changed, rates), chosen, generator(0))
    assert found.replicated[1]
    assert not found.replicated[0]
    assert found.replication.auroc[1] > 0.9


def test_directions_are_matched_to_their_shuffled_and_noisy_copies():
    g = generator(0)
    base = functional.normalize(torch.randn(40, 32, generator=g), dim=1)
    order = torch.randperm(40, generator=g)
    tuned = base[order] + 0.05 * torch.randn(40, 32, generator=g)
    # Five are replaced, and five are more than the base has.
    tuned[:5] = torch.randn(5, 32, generator=g)
    tuned = torch.cat([3 * tuned, torch.randn(5, 32, generator=g)])
    found = match_directions(base, tuned, generator(1))
    partner = dict(zip(found.tuned.tolist(), found.base.tolist(), strict=True))
    assert [partner[i] for i in range(5, 40)] == order[5:].tolist()
    assert set(range(5, 40)) <= set(found.tuned[found.matched].tolist())
    assert len(set(found.alone_in_tuned.tolist()) & {*range(5), *range(40, 45)}) >= 9
    unrelated = match_directions(base, torch.randn(40, 32, generator=g), generator(2))
    assert int(unrelated.matched.sum()) <= 4
    with pytest.raises(ShapeError, match="of one width; got 32 and 31"):
        match_directions(base, base[:, :31], generator(0))


def test_scaling_is_least_squares_and_adds_up():
    g = generator(0)
    dense = torch.randn(60, 5, generator=g).relu()
    dense[:, 4] = 0
    directions, target = torch.randn(5, 8, generator=g), torch.randn(60, 8, generator=g)
    codes = Codes.from_dense(dense)
    scale = ScalingSums.of(codes, directions, target).scale()
    for latent in range(4):
        column = torch.outer(dense[:, latent], directions[latent]).flatten()[:, None]
        beta = torch.linalg.lstsq(column.double(), target.flatten()[:, None].double()).solution
        assert float(scale[latent]) == pytest.approx(float(beta))
    assert scale[4].isnan()
    parts = [ScalingSums.of(codes[p], directions, target[p]) for p in (slice(0, 25), slice(25, 60))]
    torch.testing.assert_close((parts[0] + parts[1]).scale()[:4], scale[:4])
    with pytest.raises(ProvenanceError, match="same directions"):
        parts[0] + ScalingSums.of(codes, directions + 1, target)
    with pytest.raises(ShapeError, match="must fit"):
        ScalingSums.of(codes, directions, target[:5])


def test_scaling_tells_new_latents_from_those_that_a_dictionary_misses():
    g = generator(3)
    directions = torch.linalg.qr(torch.randn(32, 32, generator=g))[0][:12]
    dense = torch.rand(2000, 12, generator=g) * (torch.rand(2000, 12, generator=g) < 0.2)
    noise = 0.02 * torch.randn(2, 2000, 32, generator=g)
    # The base model lacks latents 0-2. Its dictionary also lacks 3-5, which the model has.
    in_base, in_dictionary = dense.clone(), dense.clone()
    in_base[:, :3] = in_dictionary[:, :6] = 0
    found = latent_scaling(
        Codes.from_dense(dense), directions,
        base=in_base @ directions + noise[0], base_reconstruction=in_dictionary @ directions,
        tuned=dense @ directions + noise[1], tuned_reconstruction=dense @ directions,
    )  # fmt: skip
    assert found.specific.nonzero()[:, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(found.error_ratio[3:6], torch.ones(3).double(), atol=0.05, rtol=0)
    assert (found.error_ratio[6:].abs() < 0.1).all()
    torch.testing.assert_close(
        found.reconstruction_ratio[6:], torch.ones(6).double(), atol=0.05, rtol=0
    )


def test_responses_of_other_documents_are_refused():
    base, _ = base_and_tuned()
    with pytest.raises(ShapeError, match="the same items"):
        model_change(base, base.take(np.arange(30)), generator(0))
    few = base.take(np.arange(4))
    with pytest.raises(TooFewTokensError, match="must have 6 documents; got 4"):
        model_change(few, few, generator(0))
    assert len(base) == DOCUMENTS
