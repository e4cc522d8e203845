from collections.abc import Callable

import pytest
import torch

from modelassay.activations.harvest import Harvest, harvest
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.decompositions.linear import Neurons, RandomDictionary
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.read import read
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from tests.evidence.planted import IGNORED, LOUD, SITE, random_contexts


@pytest.fixture(scope="module")
def evidence(
    planted_subject: Subject, harvested: Callable[[Subject], Harvest]
) -> dict[str, Evidence]:
    harvest = harvested(planted_subject)
    neurons = Neurons(12, SITE)
    found = read(
        planted_subject, neurons, neurons.encode(harvest.activations()), harvest,
        samples_per_latent=16, horizon=4, generator=generator(0), progress=SILENT,
    )  # fmt: skip
    return {each.name: each for each in found}


def test_a_direction_that_nothing_reads_is_found_out(evidence: dict[str, Evidence]):
    for name in ("read", "read_isotropic", "read_next_layer"):
        each = evidence[name]
        assert each.value[IGNORED] < -3
        assert each.high[IGNORED] < -2
        assert each.q_value is not None
        assert each.q_value[IGNORED] < 0.01
    assert evidence["read_effect"].value[IGNORED] < 1e-6
    assert evidence["read_effect"].null[IGNORED] > 1e-3


def test_a_direction_that_is_read_loudly_is_heard(evidence: dict[str, Evidence]):
    for name in ("read", "read_isotropic"):
        each = evidence[name]
        assert each.low[LOUD] > 0.5
        assert each.q_value is not None
        assert each.q_value[LOUD] < 0.01
    # Loud at the output alone: the next block reads it like any other neuron.
    assert abs(float(evidence["read_next_layer"].value[LOUD])) < 1


def test_numbers_belong_together(evidence: dict[str, Evidence]):
    assert list(evidence) == ["read", "read_isotropic", "read_next_layer", "read_effect"]
    for each in evidence.values():
        assert (each.low <= each.value).all()
        assert (each.value <= each.high).all()
        assert (each.n == 16).all()
    assert (evidence["read"].null == 0).all()


def test_only_chosen_latents_are_measured_and_the_last_site_has_no_next(planted_subject: Subject):
    last = Site("resid_post", 1)
    found = harvest(planted_subject, random_contexts(12, 2, 20, 23), last, progress=SILENT)
    dictionary = RandomDictionary(40, 12, 4, generator=generator(0), site=last)
    codes = dictionary.encode(found.activations())
    evidence = read(
        planted_subject, dictionary, codes, found, latents=torch.tensor([3, 17]),
        samples_per_latent=8, horizon=2, max_position=10, generator=generator(0), progress=SILENT,
    )  # fmt: skip
    assert [each.name for each in evidence] == ["read", "read_isotropic", "read_effect"]
    measured = (~evidence[0].value.isnan()).nonzero()[:, 0].tolist()
    assert set(measured) <= {3, 17}
    assert measured


def test_codes_of_something_else_are_refused(
    planted_subject: Subject, harvested: Callable[[Subject], Harvest]
):
    harvest = harvested(planted_subject)
    neurons = Neurons(12, SITE)
    codes = neurons.encode(harvest.activations())[:10]
    with pytest.raises(ValueRangeError, match="must be those of neurons 12 on the harvest"):
        read(planted_subject, neurons, codes, harvest, generator=generator(0), progress=SILENT)
