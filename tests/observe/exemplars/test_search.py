"""Examples and negatives over harvests: what is found must be what it says, however it is read."""

import pytest
import torch

from modelassay.core.errors import ShapeError, UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.linear import Neurons, RandomDictionary
from modelassay.observe.exemplars.search import Wanted, peak_values, search_examples
from modelassay.observe.exemplars.units import (
    Units,
    coordinates,
    directions,
    latents,
    probe_scores,
)
from modelassay.observe.probes.probe import LinearHead, Probe, Scaling
from tests.observe.unit_cases import SITE, WIDTH, made_harvest, sparse_units


def rows_of(found, harvest):
    """(unit, group, row) of each example."""
    examples = found.examples
    place = {tuple(p): i for i, p in enumerate(harvest.contexts.measured.nonzero().tolist())}
    for e in range(len(examples.latents)):
        document = int(examples.documents[int(examples.contexts[e])][1:])
        position = int(examples.starts[e] + examples.peaks[e])
        yield int(examples.latents[e]), int(examples.groups[e]), place[document, position]


def test_every_kind_of_example_is_what_it_says():
    harvest, units = made_harvest(), sparse_units()
    wanted = Wanted(n_top=3, n_groups=2, per_group=3, n_random=3, n_near=2, n_same=2, reach=4)
    found = search_examples(harvest, SITE, units, wanted=wanted, batch_contexts=7)
    x = harvest.activations(SITE)
    values = (x[:, :3] - 0.7).relu()
    context = harvest.contexts.measured.nonzero()[:, 0]
    token = harvest.contexts.tokens[harvest.contexts.measured]
    cosine = torch.nn.functional.normalize(x, dim=1)[:, :3]
    chosen = list(rows_of(found, harvest))
    assert found.examples.group_names == wanted.names
    for unit in range(3):
        of = {g: [r for u, h, r in chosen if (u, h) == (unit, g)] for g in range(6)}
        assert [len(of[g]) for g in range(6)] == list(wanted.counts)
        everywhere = [int(context[r]) for rows in of.values() for r in rows]
        assert len(set(everywhere)) == len(everywhere)
        column = values[:, unit]
        best = torch.stack([column[context == c].max() for c in range(40)])
        assert column[of[0]].tolist() == best.sort(descending=True).values[:3].tolist()
        middle = column[column > 0].median()
        assert all(column[r] >= middle * 0.98 for r in of[1])
        assert all(0 < column[r] <= middle * 1.02 for r in of[2])
        silent = of[3] + of[4] + of[5]
        assert all(column[r] == 0 for r in silent)
        assert {int(token[r]) for r in of[5]} <= {int(token[r]) for r in of[0]}
        # Of the contexts that no earlier group took, the silent tokens nearest to the direction.
        taken = {int(context[r]) for g in range(4) for r in of[g]}
        free = [r for r in range(len(x)) if column[r] == 0 and int(context[r]) not in taken]
        ranked = sorted(free, key=lambda r: -cosine[r, unit])
        assert of[4][0] == ranked[0]
    shown = peak_values(found.examples)
    expected = torch.tensor([float(values[row, unit]) for unit, _, row in chosen])
    torch.testing.assert_close(shown, expected)


def test_examples_do_not_depend_on_how_the_harvest_is_read():
    harvest, units = made_harvest(1), sparse_units()
    one = search_examples(harvest, SITE, units, batch_contexts=3)
    other = search_examples(harvest, None, units, batch_contexts=40)
    reseeded = search_examples(harvest, None, units, seed=5)
    assert list(rows_of(one, harvest)) == list(rows_of(other, harvest))
    assert list(rows_of(one, harvest)) != list(rows_of(reseeded, harvest))
    assert torch.equal(one.statistics.sketch.counts, other.statistics.sketch.counts)


def test_a_unit_that_is_never_active_has_only_negatives():
    harvest = made_harvest()
    units = directions(torch.eye(WIDTH)[:1], offsets=torch.tensor([99.0]))
    found = search_examples(harvest, SITE, units)
    assert set(found.examples.groups.tolist()) == {6, 7}
    assert (peak_values(found.examples) == 0).all()


def test_latents_read_what_the_decomposition_encodes():
    x = made_harvest().activations(SITE)
    dictionary = RandomDictionary(20, WIDTH, 4, generator=generator(3))
    dense = dictionary.encode(x).dense()
    assert torch.equal(latents(dictionary)(x).dense(), dense)
    some = latents(dictionary, [7, 2, 19])
    assert torch.equal(some(x).dense(), dense[:, [7, 2, 19]])
    assert some.names == ("latent 7", "latent 2", "latent 19")
    assert torch.equal(
        latents(Neurons(WIDTH))(x).dense(), coordinates(WIDTH, signed=True)(x).dense()
    )


def test_a_probes_score_is_its_log_odds_where_it_says_yes():
    x = made_harvest().activations(SITE)
    probe = Probe(
        method="by hand", classes=("no", "yes"), scaling=Scaling.of(x),
        head=LinearHead(
            weight=torch.randn(WIDTH, 1, generator=generator(1)).double(),
            bias=torch.ones(1).double(),
        ),
        trained_on=frozenset(), facts={},
    )  # fmt: skip
    units = probe_scores(probe)
    odds = probe.probabilities(x)
    expected = (odds[:, 1] / odds[:, 0]).log().clamp(min=0)
    torch.testing.assert_close(units(x).dense()[:, 0].double(), expected, atol=1e-5, rtol=1e-4)
    assert units.names == ("probe: yes",)
    # The covector is along the direction in which the log-odds rise.
    direction = units.covectors[0] / units.covectors[0].norm()
    torch.testing.assert_close(direction.double(), probe.direction().double(), atol=1e-6, rtol=1e-5)


def test_what_cannot_be_read_is_refused():
    x = torch.zeros(3, WIDTH)
    with pytest.raises(ValueRangeError, match="from 0 to 5; got 9"):
        coordinates(WIDTH, [9])
    with pytest.raises(ValueRangeError, match="chosen once"):
        latents(Neurons(WIDTH), [1, 1])
    with pytest.raises(ShapeError, match="Directions of width 5"):
        directions(torch.ones(1, 5))(x)
    wrong = Units(names=("a", "b"), read=Codes.from_dense)
    with pytest.raises(ShapeError, match="must give 2 values"):
        wrong(x)
    with pytest.raises(ValueRangeError, match="at least one; got none"):
        coordinates(WIDTH, [])
    with pytest.raises(ValueRangeError, match="groups at least 1"):
        Wanted(n_groups=0)
    multi = Probe(
        method="m", classes=("a", "b", "c"), scaling=Scaling.of(torch.rand(5, 2)),
        head=LinearHead(weight=torch.ones(2, 3).double(), bias=torch.zeros(3).double()),
        trained_on=frozenset(), facts={},
    )  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="linear and of two classes"):
        probe_scores(multi)
