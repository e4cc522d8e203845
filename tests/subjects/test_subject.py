import pytest
import torch
from torch import nn

from modelassay.core.errors import (
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.subjects.hooks import Flags
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.testing import (
    CONTEXT_TOKENS,
    D_MODEL,
    FAMILIES,
    N_HEADS,
    VOCAB_SIZE,
    tiny_model,
    tiny_subject,
)

LAST = 1  # tiny models have two layers


def ids(batch=2, token=7, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB_SIZE, (batch, token), generator=generator)


def state_of(module):
    """Everything that a call must leave as it was."""
    return [
        (
            path,
            len(part._forward_hooks),
            len(part._forward_pre_hooks),
            "forward" in vars(part),
            part.training,
        )
        for path, part in module.named_modules()
    ] + [(module.config.to_dict(), module.config._attn_implementation)]


def block(subject, layer):
    return [site for site in subject.sites() if site.layer == layer]


# The others differ from one of these in nothing that these tests look at; all are verified at
# load, in test_structure.
TESTED = sorted(set(FAMILIES) - {"gpt_neox_sequential", "gptj", "mistral", "qwen2", "olmo2"})


@pytest.fixture(scope="module", params=TESTED)
def subject(request):
    return tiny_subject(request.param)


@pytest.fixture(scope="module")
def llama():
    return tiny_subject("llama")


@pytest.fixture(scope="module")
def gemma():
    return tiny_subject("gemma2")


# --- reading -------------------------------------------------------------------------------


def test_the_residual_stream_is_what_transformers_calls_hidden_states(subject):
    tokens = ids()
    run = subject.run(tokens, read=subject.sites())
    with Flags.of(subject.module).evaluating(), torch.no_grad():
        theirs = subject.module(tokens, output_hidden_states=True, use_cache=False)
    torch.testing.assert_close(run.logits, theirs.logits)
    for layer, hidden in enumerate(theirs.hidden_states[:-1]):
        torch.testing.assert_close(run.activations[Site("resid_pre", layer)], hidden)
    # The last hidden state of transformers is after the final norm.
    normed = subject.final_norm(run.activations[Site("resid_post", LAST)])
    torch.testing.assert_close(normed, theirs.hidden_states[-1])


def test_widths_and_shapes(subject):
    run = subject.run(ids(2, 7), read=subject.sites())
    for site, value in run.activations.items():
        expected = {"head_out": (2, 7, N_HEADS), "attn_pattern": (2, N_HEADS, 7, 7)}
        lead = expected.get(site.role, (2, 7))
        assert value.shape[: len(lead)] == lead
        feature_axis = 1 if site.role == "attn_pattern" else -1
        assert value.shape[feature_axis] == subject.width(site)
        if site.role.startswith("resid") or site.role in ("attn_out", "mlp_out"):
            assert subject.width(site) == D_MODEL


def test_patterns_are_causal_distributions(subject):
    site = Site("attn_pattern", 0)
    pattern = subject.run(ids(), read=[site]).activations[site]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
    assert torch.equal(pattern, pattern.tril())


def test_head_out_by_its_definition():
    for family in ("llama", "gpt2"):
        subject, sites = tiny_subject(family), [Site(r, 0) for r in ("attn_pattern", "head_out")]
        values = Site("module", path="model.layers.0.self_attn.v_proj")
        if family == "gpt2":
            values = Site("module", path="transformer.h.0.attn.c_attn")
        read = subject.run(ids(1, 5), read=[*sites, values]).activations
        pattern, heads = (read[site][0].double() for site in sites)
        v = read[values][0].double()
        v = v[:, -D_MODEL:] if family == "gpt2" else v
        groups = N_HEADS * heads.shape[-1] // v.shape[-1]
        for head in range(N_HEADS):
            begin = head // groups * heads.shape[-1]
            own = v[:, begin : begin + heads.shape[-1]]
            for query in range(5):
                by_hand = sum(pattern[head, query, key] * own[key] for key in range(5))
                torch.testing.assert_close(heads[query, head], by_hand, atol=1e-6, rtol=1e-5)


def test_logits_of_the_last_residual_stream_in_any_shape(subject):
    site = Site("resid_post", LAST)
    run = subject.run(ids(), read=[site])
    resid = run.activations[site]
    torch.testing.assert_close(subject.logits_of(resid), run.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(subject.logits_of(resid[0]), run.logits[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        subject.logits_of(resid[0, 2]), run.logits[0, 2], atol=1e-5, rtol=1e-4
    )


def test_the_unembedding_maps_the_normed_stream_to_logits(llama):
    site = Site("resid_post", LAST)
    run = llama.run(ids(), read=[site])
    by_hand = llama.final_norm(run.activations[site]) @ llama.unembedding()
    torch.testing.assert_close(by_hand, run.logits)


def test_gemma_caps_its_logits_in_logits_of(gemma):
    large = 1e4 * torch.ones(1, D_MODEL)
    assert gemma.logits_of(large).abs().max() <= gemma.module.config.final_logit_softcapping


def test_reading_changes_no_bit(subject):
    tokens = ids()
    assert torch.equal(subject.run(tokens).logits, subject.run(tokens, read=subject.sites()).logits)


# --- editing -------------------------------------------------------------------------------


def test_an_empty_edit_changes_no_bit(subject):
    tokens = ids()
    clean = subject.run(tokens, read=subject.sites())
    same = subject.run(
        tokens, read=subject.sites(), edit={site: lambda value: value for site in subject.sites()}
    )
    assert torch.equal(clean.logits, same.logits)
    for site in subject.sites():
        assert torch.equal(clean.activations[site], same.activations[site])


def test_every_edit_reads_back_and_changes_the_logits(subject):
    tokens = ids()
    clean = subject.run(tokens, read=block(subject, 0))
    for site in block(subject, 0):
        wanted = clean.activations[site].flip(0)
        run = subject.run(tokens, read=[site], edit={site: lambda _, wanted=wanted: wanted})
        torch.testing.assert_close(run.activations[site], wanted, atol=1e-5, rtol=1e-5)
        assert not torch.equal(run.logits, clean.logits)


def test_an_edit_of_a_branch_moves_the_stream_by_as_much(subject):
    tokens, pre = ids(), [Site("resid_post", 0)]
    clean = subject.run(tokens, read=pre).activations[pre[0]]
    moved = subject.run(
        tokens, read=pre, edit={Site("mlp_out", 0): lambda value: value + 1.5}
    ).activations[pre[0]]
    torch.testing.assert_close(moved, clean + 1.5)


def test_resid_mid_carries_its_edit_to_both_the_mlp_and_the_stream(llama):
    tokens, mid, post, mlp = ids(), *(Site(r, 0) for r in ("resid_mid", "resid_post", "mlp_out"))
    wanted = torch.randn(2, 7, D_MODEL, generator=torch.Generator().manual_seed(0))
    run = llama.run(tokens, read=[mid, post, mlp], edit={mid: lambda _: wanted})
    block = llama.module.model.layers[0]
    torch.testing.assert_close(
        run.activations[mlp], block.mlp(block.post_attention_layernorm(wanted))
    )
    torch.testing.assert_close(run.activations[post], wanted + run.activations[mlp])


def test_a_head_without_attention_writes_nothing_and_leaves_the_others(subject):
    pattern, heads = Site("attn_pattern", 0), Site("head_out", 0)
    tokens = ids()

    def silence(weights):
        weights[:, 1] = 0
        return weights

    clean = subject.run(tokens, read=[heads]).activations[heads]
    run = subject.run(tokens, read=[heads, pattern], edit={pattern: silence})
    assert run.activations[heads][:, :, 1].abs().max() == 0
    others = [head for head in range(N_HEADS) if head != 1]
    torch.testing.assert_close(run.activations[heads][:, :, others], clean[:, :, others])
    assert run.activations[pattern][:, 1].abs().max() == 0


def test_edits_of_one_block_act_together_in_the_order_of_computation(llama):
    tokens = ids()
    attn_out, mid, pre = (Site(role, 0) for role in ("attn_out", "resid_mid", "resid_pre"))
    run = llama.run(
        tokens,
        read=[pre, mid],
        edit={mid: lambda v: v + 4, attn_out: lambda v: 0 * v + 2, pre: lambda v: 0 * v + 1},
    )
    torch.testing.assert_close(run.activations[pre], torch.ones(2, 7, D_MODEL))
    torch.testing.assert_close(run.activations[mid], torch.full((2, 7, D_MODEL), 7.0))


def test_an_edit_in_place_reaches_no_earlier_read(llama):
    tokens, post, pre = ids(), Site("resid_post", 0), Site("resid_pre", 1)
    clean = llama.run(tokens, read=[post]).activations[post]
    run = llama.run(tokens, read=[post, pre], edit={pre: lambda value: value.zero_()})
    assert torch.equal(run.activations[post], clean)
    assert run.activations[pre].abs().max() == 0


def test_what_falcon_overwrites_is_read_before_and_taken_from_a_copy():
    falcon, site = tiny_subject("falcon"), Site("mlp_out", 0)
    mine = torch.ones(2, 7, D_MODEL)
    run = falcon.run(ids(), read=[site], edit={site: lambda _: mine})
    assert torch.equal(mine, torch.ones(2, 7, D_MODEL))
    assert torch.equal(run.activations[site], mine)


# --- stopping ------------------------------------------------------------------------------


def test_until_stops_and_reads_the_same_values(subject):
    tokens, calls = ids(), []
    handle = subject.unembedding_module.register_forward_hook(lambda *_: calls.append(1))
    full = subject.run(tokens, read=block(subject, 1))
    for site in block(subject, 1):
        run = subject.run(tokens, read=[site], until=site)
        assert run.logits is None
        assert torch.equal(run.activations[site], full.activations[site])
    handle.remove()
    assert len(calls) == 1


def test_sites_after_the_stop_are_refused_and_not_left_out(llama):
    late, early = Site("mlp_out", 1), Site("resid_post", 0)
    with pytest.raises(ValueRangeError, match=r"out of reach: mlp_out\.1; got until=resid_post\.0"):
        llama.run(ids(), read=[early, late], until=early)
    with pytest.raises(ValueRangeError, match=r"out of reach: mlp_out\.1"):
        llama.run(ids(), edit={late: lambda value: value}, until=early)


# --- gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "frozen"), [("llama", True), ("opt", False), ("gemma2", False), ("falcon", True)]
)
def test_gradients_at_reads_match_finite_differences(family, frozen):
    model = tiny_model(family).double().requires_grad_(not frozen)
    if family == "opt":  # its ReLUs have kinks, at which differences and derivatives differ
        for layer in model.model.decoder.layers:
            layer.activation_fn = nn.GELU()
    subject, tokens = load_subject(model), ids(1, 4)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, 4, VOCAB_SIZE, dtype=torch.float64, generator=generator)
    # One site a run: a frozen model's graph begins at the site.
    for site in block(subject, 0):
        run = subject.run(tokens, read=[site], gradients=True)
        value = run.activations[site]
        assert run.logits is not None
        (gradient,) = torch.autograd.grad((run.logits * weights).sum(), value)
        # Long, because attention weights are single-precision numbers even in a double model.
        step = 1e-4 * torch.randn(value.shape, dtype=torch.float64, generator=generator)
        up, down = (
            (subject.run(tokens, edit={site: lambda v, s=s: v + s}).logits * weights).sum()
            for s in (step, -step)
        )
        torch.testing.assert_close((gradient * step).sum(), (up - down) / 2, rtol=5e-3, atol=1e-6)


def test_gradients_flow_through_edits(llama):
    site, tokens = Site("resid_mid", 0), ids()
    leaf = torch.zeros(2, 7, D_MODEL, requires_grad=True)
    run = llama.run(tokens, edit={site: lambda value: value + leaf}, gradients=True)
    (through_edit,) = torch.autograd.grad(run.logits.sum(), leaf)
    read = llama.run(tokens, read=[site], gradients=True)
    (at_read,) = torch.autograd.grad(read.logits.sum(), read.activations[site])
    torch.testing.assert_close(through_edit, at_read)


def test_without_gradients_nothing_is_recorded(llama):
    run = llama.run(ids(), read=llama.sites())
    assert not run.logits.requires_grad
    assert not any(value.requires_grad for value in run.activations.values())
    assert not run.logits.is_inference()
    assert torch.is_grad_enabled()


# --- padding and generation ----------------------------------------------------------------


def test_right_padding_is_inert(subject):
    long, short = ids(1, 7), ids(1, 4, seed=4)
    padded = torch.cat([short, torch.zeros(1, 3, dtype=torch.long)], dim=1)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    batch = subject.run(torch.cat([long, padded]), mask=mask, read=subject.sites())
    alone = subject.run(short, read=subject.sites())
    torch.testing.assert_close(batch.logits[1, :4], alone.logits[0], atol=1e-5, rtol=1e-4)
    for site in subject.sites():
        if site.role != "attn_pattern":
            torch.testing.assert_close(
                batch.activations[site][1, :4],
                alone.activations[site][0],
                atol=1e-5,
                rtol=1e-4,
            )
    unpadded = subject.run(long)
    torch.testing.assert_close(batch.logits[:1], unpadded.logits, atol=1e-5, rtol=1e-4)


def test_greedy_generation_is_repeated_argmax(llama):
    prompt = ids(2, 3)
    longer = llama.generate(prompt, max_new_tokens=4)
    assert torch.equal(longer[:, :3], prompt)
    for end in range(3, 7):
        assert torch.equal(longer[:, end], llama.run(longer[:, :end]).logits[:, -1].argmax(-1))


def test_generation_under_an_edit_that_decides_every_token(llama):
    direction = llama.unembedding()[:, 5] * 1e4
    edit = {Site("resid_post", LAST): lambda value: torch.zeros_like(value) + direction}
    assert (llama.generate(ids(1, 2), max_new_tokens=3, edit=edit)[:, 2:] == 5).all()


def test_sampling_repeats_with_its_seed_and_needs_one(llama):
    def sample(seed):
        generator = torch.Generator().manual_seed(seed)
        return llama.generate(ids(), max_new_tokens=5, temperature=2.0, generator=generator)

    assert torch.equal(sample(0), sample(0))
    assert not torch.equal(sample(0), sample(1))
    with pytest.raises(ValueRangeError, match=r"above 0 together with a generator; got 0\.5"):
        llama.generate(ids(), max_new_tokens=1, temperature=0.5)


# --- downstream ----------------------------------------------------------------------------


def test_downstream_runs_the_rest_and_never_the_prefix(subject):
    tokens = ids()
    clean = subject.run(tokens, read=subject.sites())
    blocks = [subject.module.get_submodule(path) for path in subject.structure.blocks]
    calls = []
    parts = [(layer, part) for layer, block in enumerate(blocks) for part in block.children()]
    handles = [
        part.register_forward_hook(lambda *_, layer=layer: calls.append(layer))
        for layer, part in parts
    ]
    for site in block(subject, 1):
        rest = subject.downstream(site, tokens)
        assert torch.equal(rest.activation, clean.activations[site])
        calls.clear()
        same = rest(rest.activation)
        first = site.layer + (site.role == "resid_post")
        assert set(calls) == set(range(first, len(blocks)))
        torch.testing.assert_close(same.logits, clean.logits)
        wanted = rest.activation.flip(0)
        torch.testing.assert_close(
            rest(wanted).logits,
            subject.run(tokens, edit={site: lambda _, wanted=wanted: wanted}).logits,
            atol=1e-5,
            rtol=1e-4,
        )
    for handle in handles:
        handle.remove()


def test_downstream_with_padding_reads_stops_and_gives_gradients(gemma):
    tokens, mask = ids(), torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    site, later = Site("resid_mid", 1), Site("mlp_out", 1)
    rest = gemma.downstream(site, tokens, mask=mask)
    full = gemma.run(tokens, mask=mask, read=[later])
    stopped = rest(rest.activation, read=[later], until=later)
    assert stopped.logits is None
    torch.testing.assert_close(stopped.activations[later], full.activations[later])
    leaf = rest.activation.clone().requires_grad_()
    run = rest(leaf, gradients=True)
    (gradient,) = torch.autograd.grad(run.logits.sum(), leaf)
    assert gradient.abs().max() > 0


def test_downstream_does_not_write_into_what_it_keeps():
    falcon = tiny_subject("falcon")
    rest = falcon.downstream(Site("mlp_out", 1), ids())
    before = rest.activation.clone()
    first = rest(rest.activation).logits
    assert torch.equal(rest(rest.activation).logits, first)
    assert torch.equal(rest.activation, before)


def test_downstream_refuses_earlier_sites_and_other_shapes(llama):
    rest = llama.downstream(Site("resid_pre", 1), ids())
    with pytest.raises(ValueRangeError, match=r"block 1 or later; got mlp_out\.0"):
        rest(rest.activation, read=[Site("mlp_out", 0)])
    with pytest.raises(ShapeError, match=r"edit of resid_pre\.1 must return \[2, 7, 32\]"):
        rest(rest.activation[:1])


# --- nothing is left behind ----------------------------------------------------------------


def test_a_call_leaves_a_model_in_training_as_it_found_it(subject):
    model = subject.module
    model.train()
    grads = [parameter.requires_grad for parameter in model.parameters()]
    before, tokens = state_of(model), ids()
    first = subject.run(tokens, read=subject.sites()).logits
    assert torch.equal(first, subject.run(tokens).logits), "dropout was on"
    subject.run(tokens, read=[Site("mlp_out", 0)], until=Site("mlp_out", 0))
    subject.run(tokens, read=subject.sites(), gradients=True)
    subject.downstream(
        Site("resid_mid" if "resid_mid" in subject.structure.ports else "mlp_in", 1), tokens
    )
    subject.logits_of(torch.zeros(3, D_MODEL))
    assert state_of(model) == before
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_failing_edit_leaves_nothing_behind(subject):
    def fail(_value):
        raise ZeroDivisionError

    before = state_of(subject.module)
    rest = subject.downstream(Site("mlp_in", 1), ids())
    for site in block(subject, 1):
        with pytest.raises(ZeroDivisionError):
            rest.rest(edit={site: fail}, read=block(subject, 1))
    assert state_of(subject.module) == before
    assert torch._C._len_torch_function_stack() == 0
    assert torch.is_grad_enabled()


def test_the_attention_implementation_of_a_given_model_is_restored():
    model = tiny_model("llama")
    assert model.config._attn_implementation == "sdpa"
    subject = load_subject(model)
    site = Site("attn_pattern", 0)
    assert subject.run(ids(), read=[site]).activations[site].ndim == 4
    assert model.config._attn_implementation == "sdpa"
    assert model.training


def test_hooks_that_transformers_installs_see_our_edits(llama):
    model, tokens, site = tiny_model("llama").eval(), ids(), Site("resid_post", 0)
    model(tokens, output_hidden_states=True)  # installs its hooks, for good
    subject = load_subject(model)
    before = state_of(model)
    seen = []
    model.config.output_hidden_states = True
    handle = model.register_forward_hook(lambda _m, _a, out: seen.append(out.hidden_states))
    subject.run(tokens, edit={site: torch.zeros_like})
    handle.remove()
    model.config.output_hidden_states = False
    assert seen[0][1].abs().max() == 0
    assert state_of(model) == before


# --- names, widths, hashes, messages ---------------------------------------------------------


def test_resolve_takes_text_and_suggests_near_misses(llama):
    assert llama.resolve("resid_post.1") == Site("resid_post", 1)
    with pytest.raises(UnknownNameError, match=r"got 'resid_post.2'.*Did you mean"):
        llama.resolve("resid_post.2")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'model.layers.1.mlp.up_proj'"):
        llama.resolve("model.layers.1.mlp.upproj:out")


def test_parallel_blocks_explain_that_they_have_no_middle():
    with pytest.raises(UnsupportedModelError, match=r"parallel block.*It has: resid_pre, attn_in"):
        tiny_subject("gpt_neox").resolve("resid_mid.0")


def test_an_edit_of_another_shape_or_dtype_is_refused(llama):
    site = Site("mlp_hidden", 0)
    with pytest.raises(ShapeError, match=r"edit of mlp_hidden\.0 must return \[2, 7, 48\]"):
        llama.run(ids(), edit={site: lambda value: value[..., :3]})
    with pytest.raises(ShapeError, match=r"got \[2, 7, 48\] of torch\.float64"):
        llama.run(ids(), edit={site: lambda value: value.double()})


def test_too_long_contexts_and_foreign_ids_are_refused(llama):
    with pytest.raises(ValueRangeError, match=f"at most {CONTEXT_TOKENS} tokens"):
        llama.run(torch.zeros(1, CONTEXT_TOKENS + 1, dtype=torch.long))
    with pytest.raises(ValueRangeError, match="this model's own tokenizer"):
        llama.run(torch.full((1, 2), VOCAB_SIZE))


def test_the_fingerprint_follows_the_weights():
    subject, twin, other = (tiny_subject("gpt2", seed) for seed in (0, 0, 1))
    assert subject.fingerprint() == twin.fingerprint() != other.fingerprint()
    assert len(subject.fingerprint()) == 16
    with torch.no_grad():
        next(twin.module.parameters()).add_(1)
    assert subject.fingerprint() != twin.fingerprint()


def test_facts_about_the_model(llama):
    facts = (llama.n_layers, llama.d_model, llama.vocab_size, llama.context_tokens, llama.n_heads)
    assert facts == (2, D_MODEL, VOCAB_SIZE, CONTEXT_TOKENS, N_HEADS)
    assert llama.device == torch.device("cpu")
    assert llama.dtype == torch.float32
    assert llama.unembedding().shape == (D_MODEL, VOCAB_SIZE)
    assert isinstance(llama.final_norm, nn.Module)
    assert len(llama.sites()) == 20
    assert llama.sites()[0] == Site("resid_pre", 0)
    assert llama.width("model.layers.0.mlp.gate_proj:out") == 48
    assert llama.token_strings([3, 5]) == ["3", "5"]
