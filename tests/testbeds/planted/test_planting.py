"""Planted features fire as planned, can be read off exactly, and act only where they are read."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.harvest import Harvest, harvest
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject
from modelassay.testbeds.planted.arms import PlantedPair
from modelassay.testbeds.planted.plan import draw_plan
from modelassay.testbeds.planted.planting import plant
from modelassay.testbeds.planted.widening import widened


def numbers(pair: PlantedPair, kind: str, *, read: bool) -> list[int]:
    """Features of a kind that the first arm reads, or those that it ignores."""
    return [n for n, p in enumerate(pair.plan) if p.kind == kind and bool(pair.read[0, n]) == read]


def firing_tokens(pair: PlantedPair, harvested: Harvest, mask: Tensor) -> Tensor:
    """Context and position of some rows, at most 8, none at a context's end."""
    rows = harvested.rows[mask]
    return rows[rows[:, 1] < 60][:8]


def effect(
    pair: PlantedPair, harvested: Harvest, rows: Tensor, edit: Tensor
) -> Float[Tensor, " row"]:
    """Largest change of any logit at or behind each row, if `edit` [row, wide] is added there."""
    subject = pair.subjects[0]
    context, position = rows.unbind(1)
    downstream = subject.downstream(pair.site, harvested.contexts.tokens[context])
    clean = downstream(downstream.activation).logits
    changed = downstream.activation.clone()
    changed[torch.arange(len(rows)), position] += edit
    logits = downstream(changed).logits
    assert clean is not None
    assert logits is not None
    return (logits - clean).abs().amax(dim=(1, 2))


def flipped(pair: PlantedPair, harvested: Harvest, rows: Tensor, features: list[int]) -> Tensor:
    """The edit that turns the sign of some features, which leaves the activation's norm alone."""
    context, position = rows.unbind(1)
    tokens = harvested.contexts.tokens[context]
    run = pair.subjects[0].run(tokens, read=[pair.site], until=pair.site)
    here = run.activations[pair.site][torch.arange(len(rows)), position]
    u = pair.directions[features]
    return -2 * (here @ u.T) @ u


def test_features_fire_as_often_and_as_strongly_as_planned(pair: PlantedPair, fit_text: Harvest):
    x = fit_text.activations()
    values, fires = pair.planted.values(x), pair.planted.fires(x)
    rates = torch.tensor([feature.rate for feature in pair.plan])
    # Those within a tenth of the threshold fire too weakly to count.
    assert torch.allclose(fires.float().mean(0), rates, rtol=0.15, atol=1.5 / len(x))
    sizes = (values * fires).sum(0) / fires.sum(0) / x.norm(dim=1).mean()
    planned = torch.tensor([feature.amplitude for feature in pair.plan])
    assert torch.allclose(sizes, planned, rtol=0.15)
    assert (values / pair.planted.amplitudes).min() > -0.05


def test_the_projection_is_all_that_was_written(
    pair: PlantedPair, subject: Subject, contexts: TokenizedCorpus, fit_text: Harvest
):
    """Beside the features stand the two constants: of rank 2, and nothing else is new."""
    x = fit_text.activations()
    rest = x - pair.planted.values(x) @ pair.directions
    original = harvest(subject, contexts.select("fit"), pair.site, progress=SILENT).activations()
    energy = torch.linalg.svdvals((rest - rest.mean(0)).double()).square()
    old = torch.linalg.svdvals((original - original.mean(0)).double()).square()
    # All but the constants is the original stream in another basis, up to the 2 % of its first
    # norm that the constant takes.
    assert torch.allclose(energy[: len(old)], old, rtol=0.1)
    assert energy[len(old) :].max() < 1e-3 * old.median()


def test_partners_meet_in_a_good_part_of_their_firings(pair: PlantedPair, fit_text: Harvest):
    fires = pair.planted.fires(fit_text.activations())
    for number, feature in enumerate(pair.plan):
        if feature.partner >= 0:
            met = (fires[:, number] & fires[:, feature.partner]).sum() / fires[:, number].sum()
            assert 0.4 < met < 0.85


@pytest.mark.parametrize("kind", ["common", "rare"])
def test_an_ignored_feature_acts_through_the_norm_alone(
    pair: PlantedPair, fit_text: Harvest, kind: str
):
    fires = pair.planted.fires(fit_text.activations())
    for read in (False, True):
        (number, *_) = numbers(pair, kind, read=read)
        rows = firing_tokens(pair, fit_text, fires[:, number])
        turned = flipped(pair, fit_text, rows, [number])
        at_equal_norm = effect(pair, fit_text, rows, turned)
        removed = effect(pair, fit_text, rows, turned / 2)
        if read:
            assert at_equal_norm.min() > 0.1
        else:
            assert at_equal_norm.max() < 1e-3
            assert 1e-3 < removed.median() < 0.5


def test_a_combination_acts_only_where_both_fire(pair: PlantedPair, fit_text: Harvest):
    fires = pair.planted.fires(fit_text.activations())
    values = pair.planted.values(fit_text.activations())
    first, second = numbers(pair, "combination", read=True)
    both = fires[:, first] & (values > 0.7 * pair.planted.amplitudes)[:, [first, second]].all(1)
    met = firing_tokens(pair, fit_text, both)
    alone = firing_tokens(pair, fit_text, fires[:, first] & ~(values[:, second] > 0.1))
    assert min(len(met), len(alone)) >= 3
    for chosen in ([first], [second], [first, second]):
        assert effect(pair, fit_text, met, flipped(pair, fit_text, met, chosen)).min() > 0.1
    lonely = effect(pair, fit_text, alone, flipped(pair, fit_text, alone, [first]))
    assert lonely.max() < 1e-3


def test_readers_write_with_the_planned_gain(pair: PlantedPair, fit_text: Harvest):
    """The block's output without its readers, against the same with one."""
    planted, tokens = pair.planted, fit_text.contexts.tokens
    fires = planted.fires(fit_text.activations())
    number = numbers(pair, "common", read=True)[0]
    only = torch.arange(len(pair.plan)) == number
    with_it = load_subject(planted.with_readers(only))
    without = load_subject(planted.with_readers(only & False))
    site = with_it.resolve(f"resid_post.{pair.plan[number].reader}")
    context, position = fit_text.rows[fires[:, number]].unbind(1)
    # One at a time of each context: readers also act on later tokens, through attention.
    context, first = (torch.tensor(column) for column in zip(*_first_of_each(context), strict=True))
    position = position[first]
    here = torch.arange(len(context)), position
    on, off = (
        one.run(tokens[context], read=[site], until=site).activations[site][here]
        for one in (with_it, without)
    )
    run = with_it.run(tokens[context], read=[pair.site], until=pair.site)
    values = planted.values(run.activations[pair.site][here])[:, number]
    gain = float((on - off).norm(dim=1).mean() / values.mean())
    assert gain == pytest.approx(pair.plan[number].gain, rel=0.25)


def _first_of_each(context: Tensor) -> list[tuple[int, int]]:
    """Each context with the place of its first row."""
    places: dict[int, int] = {}
    for place, number in enumerate(context.tolist()):
        places.setdefault(number, place)
    return list(places.items())


def test_more_features_than_private_dimensions_are_refused(
    subject: Subject, contexts: TokenizedCorpus
):
    plan = draw_plan({"common": 4}, (3,), generator(0))
    model = widened(subject.module, 4, generator(0))
    with pytest.raises(ValueRangeError, match=r"got 4 features for 4 dimensions\. Widen.* by 6"):
        plant(model, plan, 2, contexts, seed=0)


@pytest.mark.parametrize("layer", [-1, 3, 5])
def test_a_block_without_a_later_reader_is_refused(
    subject: Subject, contexts: TokenizedCorpus, layer: int
):
    plan = draw_plan({"common": 4}, (3,), generator(0))
    model = widened(subject.module, 8, generator(0))
    with pytest.raises(ValueRangeError, match=f"got layer {layer} and readers in"):
        plant(model, plan, layer, contexts, seed=0)
