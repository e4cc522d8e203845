import torch

from modelassay.subjects.structure import close, module_tree
from modelassay.subjects.testing import tiny_model, tiny_subject


def test_layer_of_a_path():
    structure = tiny_subject("gpt2").structure
    assert structure is not None
    assert structure.layer_of("transformer.h.1.attn.c_proj") == 1
    assert structure.layer_of("transformer.h.1") == 1
    assert structure.layer_of("transformer.h.10") is None
    assert structure.layer_of("transformer.wte") is None


def test_the_module_tree_tells_repeated_siblings_once():
    tree = module_tree(tiny_model("llama"))
    assert tree.count("self_attn: LlamaAttention") == 1
    assert "lm_head: Linear" in tree


def test_close_scales_with_the_terms_of_the_sum():
    large, small = torch.tensor([1e6]), torch.tensor([0.25])
    total = large + small
    assert close(total - large, small, (total, large))
    assert not close(total - large, small + 0.5, (small,))
    assert not close(torch.zeros(2), torch.zeros(3))
