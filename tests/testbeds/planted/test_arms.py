"""The arms agree to the bit up to the site, and read what the other ignores."""

import pytest
import torch

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import UnknownNameError, UnsupportedModelError, ValueRangeError
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.subjects.load import load_subject
from modelassay.subjects.null_twins import KINDS, null_twin
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import tiny_subject
from modelassay.testbeds.planted.arms import PlantedPair, planted_arms
from tests.testbeds.planted.conftest import COUNTS


def test_activations_up_to_the_site_are_the_same_bits(pair: PlantedPair, contexts: TokenizedCorpus):
    tokens = contexts.tokens[:6]
    sites = [Site("resid_post", layer) for layer in range(6)]
    one, two = (subject.run(tokens, read=sites).activations for subject in pair.subjects)
    for site in sites:
        assert torch.equal(one[site], two[site]) == (site.layer <= pair.site.layer)


@pytest.mark.parametrize("kind", KINDS)
def test_the_arms_null_twins_agree_as_well(pair: PlantedPair, contexts: TokenizedCorpus, kind: str):
    tokens = contexts.tokens[:4]
    one, two = (
        null_twin(subject, kind, keep_embeddings=True, generator=generator(1))
        .run(tokens, read=[pair.site], until=pair.site)
        .activations[pair.site]
        for subject in pair.subjects
    )
    assert torch.equal(one, two)


def test_each_arm_reads_half_of_each_kind_and_the_other_the_rest(pair: PlantedPair):
    assert torch.equal(pair.read[0], ~pair.read[1])
    for kind, count in COUNTS.items():
        chosen = torch.tensor([feature.kind == kind for feature in pair.plan])
        assert pair.read[0][chosen].sum() == count / 2
    for number, feature in enumerate(pair.plan):
        assert {pair.kind(number, arm) for arm in (0, 1)} == {"ignored", feature.kind}
        if feature.partner >= 0:
            assert pair.read[0, number] == pair.read[0, feature.partner]


def test_a_score_of_activations_is_at_chance_over_both_arms(pair: PlantedPair):
    score = torch.rand(len(pair.plan), generator=generator(0))
    positive, negative = score.repeat(2)[pair.read.flatten()], score.repeat(2)[~pair.read.flatten()]
    above = (positive[:, None] > negative).double() + 0.5 * (positive[:, None] == negative)
    assert float(above.mean()) == 0.5


def test_the_seed_decides_everything(subject: Subject, contexts: TokenizedCorpus):
    before = subject.fingerprint()
    pairs = [
        planted_arms(
            subject, contexts, seed=seed, counts={"common": 2}, calibration_tokens=500,
            progress=SILENT,
        )
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert subject.fingerprint() == before
    prints = [[arm.fingerprint() for arm in each.subjects] for each in pairs]
    assert prints[0] == prints[1]
    assert not set(prints[0]) & set(prints[2])


def test_planting_costs_the_model_little(
    pair: PlantedPair, subject: Subject, contexts: TokenizedCorpus
):
    heldout = contexts.select("heldout")[:20]

    def loss(each: Subject) -> float:
        logits = each.run(heldout.tokens, mask=heldout.mask).logits
        assert logits is not None
        after = heldout.mask[:, 1:]
        predicted = logits[:, :-1].log_softmax(-1)
        chosen = predicted.gather(2, heldout.tokens[:, 1:, None])[..., 0]
        return -float(chosen[after].mean())

    original = loss(subject)
    assert abs(loss(load_subject(pair.planted.trunk)) - original) < 0.05
    for arm in pair.subjects:
        assert loss(arm) < original + 0.15


def test_keys_and_values_can_be_kept(pair: PlantedPair, contexts: TokenizedCorpus):
    module, tokens = pair.subjects[0].module, contexts.tokens[:2, :30]
    whole = module(tokens).logits
    start = module(tokens[:, :20], use_cache=True)
    rest = module(tokens[:, 20:], past_key_values=start.past_key_values).logits
    assert torch.allclose(rest, whole[:, 20:], atol=1e-3)


def test_what_cannot_be_planted_is_refused(subject: Subject, contexts: TokenizedCorpus):
    with pytest.raises(ValueRangeError, match="layer must be in 0 … 4, so that a later block"):
        planted_arms(subject, contexts, seed=0, layer=5)
    with pytest.raises(UnknownNameError, match="Did you mean 'common'"):
        planted_arms(subject, contexts, seed=0, counts={"commonly": 2})
    with pytest.raises(UnsupportedModelError, match="got GPT2LMHeadModel"):
        planted_arms(tiny_subject("gpt2"), contexts, seed=0, layer=0)
