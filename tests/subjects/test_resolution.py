import pytest
import torch
import transformers
from torch import nn

from modelassay.core.errors import UnsupportedModelError
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import ROLES, Site
from modelassay.subjects.structure import is_language_model
from modelassay.subjects.testing import D_MODEL, FAMILIES, N_HEADS, tiny_subject

PARALLEL = {"gpt_neox", "gptj", "phi", "falcon", "cohere"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_resolves_to_all_its_roles(family):
    structure = tiny_subject(family).structure
    assert structure is not None
    absent = {"resid_mid"} if family in PARALLEL else set()
    absent |= {"mlp_hidden"} if family == "mixtral" else set()
    assert set(ROLES) - set(structure.ports) == absent
    assert list(structure.ports) == [role for role in ROLES if role not in absent]
    assert structure.n_heads == N_HEADS
    assert structure.d_model == D_MODEL
    assert structure.final_norm is not None


@pytest.mark.parametrize(
    ("family", "role", "path"),
    [
        ("gemma2", "attn_out", "model.layers.1.post_attention_layernorm"),
        ("gemma3", "mlp_out", "model.layers.1.post_feedforward_layernorm"),
        ("opt", "mlp_hidden", "model.decoder.layers.1.fc2"),
        ("bloom", "attn_out", "transformer.h.1.self_attention.dense"),
        ("phi", "attn_out", "model.layers.1.self_attn"),
        ("gpt2", "head_out", "transformer.h.1.attn.c_proj"),
    ],
)
def test_known_places(family, role, path):
    structure = tiny_subject(family).structure
    assert structure is not None
    assert structure.port(role, 1).path == path


def test_a_model_that_overwrites_a_role_is_known():
    structure = tiny_subject("falcon").structure
    assert structure is not None
    assert set(structure.ports) - structure.kept == {"mlp_out"}


class Attention(nn.Module):
    def __init__(self, width, heads=2):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        batch, token, _ = x.shape
        q, k, v = self.qkv(x).view(batch, token, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2)
        later = torch.ones(token, token, dtype=torch.bool).triu(1)
        pattern = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.out((pattern @ v).transpose(1, 2).reshape(batch, token, -1)), pattern


class Block(nn.Module):
    def __init__(self, width, scale=1.0, returns_pattern=True):
        super().__init__()
        self.attention, self.norm = Attention(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )
        self.scale, self.returns_pattern = scale, returns_pattern

    def forward(self, x):
        x = x + self.scale * self.attention(x)[0]
        return x + self.mlp(self.norm(x))


class Model(nn.Module):
    """A decoder as somebody might write it, with switches for what may go wrong."""

    def __init__(self, width=8, vocab=11, scale=1.0, tail_shift=0.0, between=0.0):
        super().__init__()
        self.embed, self.head = nn.Embedding(vocab, width), nn.Linear(width, vocab)
        self.blocks = nn.ModuleList(Block(width, scale) for _ in range(2))
        self.tail_shift, self.between = tail_shift, between

    def get_output_embeddings(self):
        return self.head

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x) + self.between
        return self.head(x) + self.tail_shift * tokens.unsqueeze(-1)


def test_a_home_made_decoder_resolves():
    subject = load_subject(Model())
    assert is_language_model(subject.module)
    assert subject.resolve("resid_mid.1") == Site("resid_mid", 1)
    assert subject.structure is not None
    assert subject.structure.final_norm is None


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ({"scale": 0.5}, r"resid_pre \+ attn_out \+ mlp_out must equal resid_post for two modules"),
        ({"tail_shift": 1.0}, r"logits_of\(resid_post\[-1\]\) must equal the model's logits"),
        ({"between": 1.0}, "resid_post.0 must reach the next block as it is"),
    ],
)
def test_what_does_not_verify_is_refused_with_the_module_tree(switch, message):
    with pytest.raises(UnsupportedModelError, match=message) as caught:
        load_subject(Model(**switch))
    assert "blocks: ModuleList" in str(caught.value)
    assert "attention: Attention" in str(caught.value)
    assert "roles=False" in str(caught.value)


def test_a_refused_model_still_has_module_ports():
    subject = load_subject(Model(scale=0.5), roles=False)
    site = subject.resolve("blocks.1.mlp:out")
    assert subject.run(torch.zeros(1, 3, dtype=torch.long), read=[site]).activations[site].ndim == 3


def test_a_model_without_blocks_or_attention_is_refused():
    model = Model()
    model.blocks = nn.Sequential(*model.blocks)
    with pytest.raises(UnsupportedModelError, match=r"hold its blocks in an nn\.ModuleList"):
        load_subject(model)
    model.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
    with pytest.raises(UnsupportedModelError, match="must return attention weights"):
        load_subject(model)


def test_a_model_that_does_not_take_tokens_is_refused():
    class Wants(Model):
        def forward(self, tokens, more):
            return super().forward(tokens)

    with pytest.raises(UnsupportedModelError, match="must run on token ids"):
        load_subject(Wants())


def test_granite_scales_its_branches_and_is_refused():
    config = transformers.GraniteConfig(
        vocab_size=67,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        residual_multiplier=0.5,
    )
    with pytest.raises(UnsupportedModelError, match="Is a branch scaled"):
        load_subject(transformers.GraniteForCausalLM(config))
