"""The Jacobian lens against finite differences of the model, and edits along its directions."""

import pytest
import torch

from modelassay.core.errors import (
    CorruptFileError,
    ProvenanceError,
    TooFewTokensError,
    ValueRangeError,
)
from modelassay.core.randomness import generator
from modelassay.observe.lenses.directions import ablated, added, swapped, token_directions
from modelassay.observe.lenses.jacobian import (
    FIRST_POSITIONS,
    PROMPT_TOKENS,
    JacobianLens,
    fit_jacobian_lens,
    jacobian_of_prompt,
)
from modelassay.observe.lenses.lens import LogitLens, depth_sites
from modelassay.observe.lenses.load import load_lens
from modelassay.observe.lenses.reading import lens_reading
from modelassay.observe.lenses.tuned import TunedLens
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.testing import tiny_model, tiny_subject

PROMPTS = [torch.randint(67, (n,), generator=generator(n)) for n in (20, 24, 10)]


@pytest.fixture(scope="module")
def subject():
    # Its norms keep double precision, which Llama's do not.
    return load_subject(tiny_model("gpt2").double())


@pytest.fixture(scope="module")
def lens(subject):
    return fit_jacobian_lens(subject, PROMPTS)


def test_is_the_sum_of_finite_differences_over_later_positions(subject):
    tokens = PROMPTS[0]
    found = jacobian_of_prompt(subject, tokens).double()
    last = depth_sites(subject)[-1]
    valid = range(FIRST_POSITIONS, len(tokens) - 1)
    step, component = 1e-4, 7
    for depth, site in enumerate(depth_sites(subject)[:-1]):
        column = torch.zeros(32, dtype=torch.float64)
        for t in valid:
            ends = []
            for sign in (step, -step):

                def nudge(resid, t=t, sign=sign):
                    resid[:, t, component] += sign
                    return resid

                run = subject.run(tokens[None], read=[last], edit={site: nudge})
                ends.append(run.activations[last][0])
            slope = (ends[0] - ends[1]) / (2 * step)
            column += slope[FIRST_POSITIONS:-1].sum(0)
        torch.testing.assert_close(
            found[depth, :, component], column / len(valid), rtol=1e-4, atol=1e-5
        )


def test_the_number_of_outputs_at_once_changes_nothing(subject):
    one = jacobian_of_prompt(subject, PROMPTS[0], outputs_at_once=5)
    other = jacobian_of_prompt(subject, PROMPTS[0], outputs_at_once=64)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_fitting_is_deterministic_and_passes_over_short_prompts(subject, lens):
    again = fit_jacobian_lens(subject, PROMPTS)
    assert torch.equal(lens.jacobian, again.jacobian)
    assert lens.n_prompts == 2
    mean = (jacobian_of_prompt(subject, PROMPTS[0]) + jacobian_of_prompt(subject, PROMPTS[1])) / 2
    torch.testing.assert_close(lens.jacobian, mean)
    assert (PROMPT_TOKENS, FIRST_POSITIONS) == (128, 16)


def test_merging_is_fitting_to_both(subject, lens):
    parts = [fit_jacobian_lens(subject, [prompt]) for prompt in PROMPTS[:2]]
    merged = parts[0].merged(parts[1])
    torch.testing.assert_close(merged.jacobian, lens.jacobian)
    assert merged.n_prompts == 2
    with pytest.raises(ProvenanceError, match="must be of one model to be merged"):
        lens.merged(fit_jacobian_lens(tiny_subject("llama", seed=3), PROMPTS[:1]))


def test_a_model_of_one_linear_path_has_the_identity(subject):
    # The last block's input reaches its output with slope 1 where the block adds nothing.
    model = tiny_model("llama").double()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # No edit of a role changes a block that adds nothing: one weight keeps it verifiable.
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0, 0] = 1e-7
            layer.mlp.down_proj.weight[0, 0] = 1e-7
    silent = load_subject(model)
    lens = fit_jacobian_lens(silent, PROMPTS[:1])
    identity = torch.eye(32).expand(2, -1, -1)
    torch.testing.assert_close(lens.jacobian, identity, rtol=0, atol=1e-5)


def test_reads_and_comes_back_from_its_file(tmp_path, subject, lens):
    path = tmp_path / "jacobian.safetensors"
    lens.save(path, dtype=torch.float32)
    back = load_lens(path)
    assert isinstance(back, JacobianLens)
    assert torch.equal(back.jacobian, lens.jacobian)
    assert back.n_prompts == 2
    lens.save(path, force=True)
    torch.testing.assert_close(load_lens(path).jacobian, lens.jacobian, rtol=1e-3, atol=1e-6)
    one, other = lens_reading(subject, [lens, LogitLens()], PROMPTS[0])
    assert one.lens == "Jacobian"
    torch.testing.assert_close(one.kl[-1], other.kl[-1])
    assert not torch.allclose(one.kl[0], other.kl[0])
    with pytest.raises(CorruptFileError, match="must hold a tuned lens"):
        TunedLens.load(path)
    huge = JacobianLens(jacobian=lens.jacobian * 1e9, n_prompts=1, header=lens.header)
    with pytest.raises(ValueRangeError, match="float16 holds entries up to 65504"):
        huge.save(tmp_path / "huge.safetensors")


def test_prompts_that_are_too_short_are_refused(subject):
    with pytest.raises(TooFewTokensError, match="at least 18 tokens; got 1, the longest of 10"):
        fit_jacobian_lens(subject, PROMPTS[2:])


def test_a_tokens_direction_raises_its_own_logit(subject, lens):
    tokens = PROMPTS[0][None]
    clean = subject.run(tokens).logits[0, FIRST_POSITIONS:-1]
    site = Site("resid_post", 0)
    chosen = torch.arange(12)
    raised = 0
    for token in chosen.tolist():
        (direction,) = token_directions(subject, lens, torch.tensor([token]), 1)
        logits = subject.run(tokens, edit={site: added(direction, 0.3)}).logits[0]
        change = (logits[FIRST_POSITIONS:-1] - clean).mean(0)
        raised += int(change[token] > change.mean())
    assert raised >= 11


def test_edits_do_what_they_say(subject, lens):
    first, second = token_directions(subject, lens, torch.tensor([3, 8]), 1)
    resid = torch.randn(6, 32, generator=generator(2))
    gone = ablated(torch.stack([first, second]))(resid)
    torch.testing.assert_close(gone @ first, torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(gone @ second, torch.zeros(6), rtol=0, atol=1e-4)
    torch.testing.assert_close(ablated(first[None])(gone), gone, rtol=1e-4, atol=1e-5)
    swap = swapped(first, second)
    torch.testing.assert_close(swap(swap(resid)), resid, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(swap(resid), resid)
    torch.testing.assert_close(swap(gone), gone, rtol=1e-3, atol=1e-4)
    moved = added(first, 0.5)(resid) - resid
    torch.testing.assert_close(moved.norm(dim=1), 0.5 * resid.norm(dim=1))
    with pytest.raises(ValueRangeError, match="must not lie on one line"):
        swapped(first, 2 * first)
    with pytest.raises(ValueRangeError, match="finite length above 0"):
        added(torch.zeros(32), 1.0)
    with pytest.raises(ValueRangeError, match="from 0 to 66; got"):
        token_directions(subject, lens, torch.tensor([67]), 1)
