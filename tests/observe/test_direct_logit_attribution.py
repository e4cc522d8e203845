"""Direct logit attribution: parts sum to the logit, and are what their removal takes away."""

import csv

import pytest
import torch

from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.linear import PCA
from modelassay.observe.direct_logit_attribution import direct_logit_attribution
from modelassay.observe.stream_parts import Replacement, stream_parts
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.testing import FAMILIES, tiny_model, tiny_subject

TOKENS = torch.randint(67, (3, 8), generator=generator(0))
TARGETS, CONTRASTS = torch.tensor([3, 9, 30]), torch.tensor([5, 9, 2])


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "gemma2"])
def test_parts_sum_to_the_logit_difference_in_every_family(family):
    subject = tiny_subject(family)
    for contrasts in (None, CONTRASTS):
        found = direct_logit_attribution(subject, TOKENS, TARGETS, contrasts=contrasts)
        logits = subject.run(TOKENS).logits[:, -1].detach()
        expected = logits[range(3), TARGETS]
        expected = expected - (logits.mean(1) if contrasts is None else logits[range(3), contrasts])
        torch.testing.assert_close(found.logit, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.attribution.sum(1), expected, rtol=1e-3, atol=1e-3)
        assert found.parts[0] == "embedding"
        assert found.parts[-1] == "constant"


def test_heads_are_told_apart_where_they_add_up():
    names = stream_parts(tiny_subject("llama"), TOKENS, torch.tensor([7, 7, 7])).names
    assert [n for n in names if n.startswith("L0")] == ["L0H0", "L0H1", "L0H2", "L0H3"]
    assert "attention 0" not in names
    # With biases, the projection's bias is a part of its own.
    assert (
        "attention bias 1"
        in stream_parts(tiny_subject("gpt2"), TOKENS, torch.zeros(3).long()).names
    )
    # What attention adds passes a norm first, which heads do not pass one by one.
    normed = stream_parts(tiny_subject("gemma3"), TOKENS, torch.zeros(3).long()).names
    assert "attention 0" in normed
    assert not [n for n in normed if n.startswith("L0H")]


def test_a_heads_part_is_what_its_removal_takes_from_the_stream():
    subject = tiny_subject("gpt2")
    found = stream_parts(subject, TOKENS, torch.tensor([7, 7, 7]))

    def without(head_out):
        head_out[:, :, 2] = 0
        return head_out

    site = Site("attn_out", 1)
    clean = subject.run(TOKENS, read=[site]).activations[site][:, -1]
    edited = subject.run(TOKENS, read=[site], edit={Site("head_out", 1): without})
    difference = clean - edited.activations[site][:, -1]
    part = found.parts[:, found.names.index("L1H2")]
    torch.testing.assert_close(part, difference.detach(), rtol=1e-3, atol=1e-5)


def test_a_parts_attribution_is_its_share_at_a_frozen_scale():
    subject = tiny_subject("llama")
    found = direct_logit_attribution(subject, TOKENS, TARGETS, contrasts=CONTRASTS)
    parts = stream_parts(subject, TOKENS, torch.tensor([7, 7, 7]))
    norm = subject.final_norm
    epsilon = norm.variance_epsilon
    scale = (parts.stream.square().mean(1) + epsilon).rsqrt()
    columns = subject.unembedding().T
    for prompt in range(3):
        wanted = columns[TARGETS[prompt]] - columns[CONTRASTS[prompt]]
        for number, part in enumerate(parts.parts[prompt]):
            expected = float((norm.weight.detach() * part * scale[prompt]) @ wanted)
            assert float(found.attribution[prompt, number]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("place", ["mlp_out.1", "resid_post.0", "resid_pre.0", "attn_out.0"])
def test_latents_stand_for_their_site(place):
    subject = tiny_subject("llama")
    site = Site.parse(place)
    values = subject.run(TOKENS, read=[site]).activations[site].flatten(0, 1).detach()
    dictionary = components(values, 6)
    replacement = Replacement(dictionary=dictionary, site=site, latents=3)
    plain = direct_logit_attribution(subject, TOKENS, TARGETS)
    found = direct_logit_attribution(subject, TOKENS, TARGETS, replacement=replacement)
    latents = [n for n in found.parts if n.startswith("latent ")]
    assert len(latents) == 3
    assert {"other latents", "dictionary bias", "dictionary error"} <= set(found.parts)
    torch.testing.assert_close(
        found.attribution.sum(1), plain.attribution.sum(1), rtol=1e-3, atol=1e-3
    )
    gone = {
        "mlp_out.1": "MLP 1",
        "resid_post.0": "MLP 0",
        "resid_pre.0": "embedding",
        "attn_out.0": "L0H0",
    }
    assert gone[place] not in found.parts
    assert gone[place] in plain.parts
    # The number that are told apart moves nothing else.
    more = direct_logit_attribution(
        subject, TOKENS, TARGETS,
        replacement=Replacement(dictionary=dictionary, site=site, latents=6),
    )  # fmt: skip
    for name in latents:
        torch.testing.assert_close(
            found.attribution[:, found.parts.index(name)],
            more.attribution[:, more.parts.index(name)],
        )


def components(values, count):
    mean = values.mean(0)
    _, sizes, rows = torch.linalg.svd(values - mean, full_matrices=False)
    return PCA(mean, rows[:count].contiguous(), sizes[:count].square())


def test_another_position_is_read_where_asked():
    subject = tiny_subject("llama")
    early = direct_logit_attribution(subject, TOKENS, TARGETS, positions=torch.tensor([2, 2, 2]))
    short = direct_logit_attribution(subject, TOKENS[:, :3], TARGETS)
    torch.testing.assert_close(early.attribution, short.attribution, rtol=1e-3, atol=1e-4)


def test_capped_logits_and_bad_targets_are_refused():
    model = tiny_model("gemma2")
    model.config.final_logit_softcapping = 0.5
    capped = load_subject(model)
    with pytest.raises(UnsupportedModelError, match=r"are not \(a soft cap\?\)"):
        direct_logit_attribution(capped, TOKENS, TARGETS)
    subject = tiny_subject("llama")
    with pytest.raises(ValueRangeError, match=r"from 0 to 66; got .*67"):
        direct_logit_attribution(subject, TOKENS, torch.tensor([1, 2, 67]))
    with pytest.raises(ValueRangeError, match="contrasts must be one token id per prompt"):
        direct_logit_attribution(subject, TOKENS, TARGETS, contrasts=torch.tensor([1, 2, -1]))
    with pytest.raises(ValueRangeError, match="positions must be one per prompt, from 0 to 7"):
        direct_logit_attribution(subject, TOKENS, TARGETS, positions=torch.tensor([0, 1, 8]))
    bare = load_subject(tiny_model("llama"), roles=False)
    with pytest.raises(UnsupportedModelError, match="Attribution needs a language model"):
        stream_parts(bare, TOKENS, torch.zeros(3).long())
    with pytest.raises(ValueRangeError, match="Latents must stand for a site"):
        Replacement(dictionary=components(torch.randn(9, 4), 2), site=Site("mlp_hidden", 0))


def test_labelled_prompts_are_attributed_on_a_real_model(shared_data):
    subject = load_subject(shared_data / "stories260k")
    with (shared_data / "labelled_prompts" / "ioi.csv").open() as file:
        rows = list(csv.DictReader(file))[:4]
    for row in rows:
        ids = subject.tokenizer(row["clean"])["input_ids"][:100]
        tokens = torch.tensor([ids])
        target = subject.run(tokens).logits[:, -1].argmax(-1)
        found = direct_logit_attribution(subject, tokens, target)
        assert found.error < 1e-3 * float(found.attribution.abs().sum())
        assert float(found.logit) > 0
        assert len(found.parts) == 1 + 5 * (8 + 1) + 1
