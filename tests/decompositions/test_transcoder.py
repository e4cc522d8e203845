"""Transcoders with a skip connection against slow definitions in float64."""

import jaxtyping
import pytest
import torch

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import JumpReLUActivation, TopKActivation
from modelassay.decompositions.storage import load_decomposition
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

D_IN, D_OUT, F = 6, 5, 24
READS, WRITES = Site("mlp_in", 3), Site("mlp_out", 3)


def weights(seed=0):
    source = generator(seed)
    draw = lambda *shape: torch.randn(*shape, generator=source)  # noqa: E731
    return {
        "W_enc": draw(D_IN, F),
        "b_enc": draw(F),
        "W_dec": draw(F, D_OUT),
        "b_dec": draw(D_OUT),
        "W_skip": draw(D_IN, D_OUT),
    }


def activations():
    return torch.randn(20, D_IN, generator=generator(9)) * 2 + 1


def transcoder(seed=0, **changes):
    threshold = torch.rand(F, generator=generator(5))
    settings = {"activation": JumpReLUActivation(threshold), "reads": READS, "writes": WRITES}
    return SkipTranscoder(**(weights(seed) | settings | changes)), threshold


def slow_latents(w, x, threshold):
    pre = x.double() @ w["W_enc"].double() + w["b_enc"].double()
    return torch.where(pre > threshold.double(), pre, 0.0)


def test_the_forward_pass_is_latents_bias_and_skip():
    made, threshold = transcoder()
    w, x = weights(), activations()
    latents = slow_latents(w, x, threshold) @ w["W_dec"].double() + w["b_dec"].double()
    expected = latents + x.double() @ w["W_skip"].double()
    torch.testing.assert_close(made(x), expected.float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.decode(made.encode(x)), latents.float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made(x) - made.skip(x), made.decode(made.encode(x)))


def test_it_comes_back_from_its_folder(tmp_path):
    made, _ = transcoder(name="mine")
    made.save(tmp_path)
    back = load_decomposition(tmp_path)
    assert isinstance(back, SkipTranscoder)
    assert (back.name, back.reads, back.writes) == ("mine", READS, WRITES)
    assert back.references == made.references == ("paulo2025transcoders",)
    assert torch.equal(back(activations()), made(activations()))


@pytest.mark.parametrize("scale", [0.3, 7.0])
def test_a_scale_of_both_sides_is_folded_exactly(scale):
    made, _ = transcoder()
    x = activations()
    expected = made(scale * x) / scale
    made.fold_input_scale(scale)
    torch.testing.assert_close(made(x), expected, atol=1e-4, rtol=1e-4)


def test_folded_norms_leave_the_reconstruction():
    made, _ = transcoder()
    expected = made(activations())
    made.fold_decoder_norms()
    torch.testing.assert_close(made(activations()), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(made.directions.norm(dim=1), torch.ones(F))


def test_a_skip_of_zeros_is_the_plain_transcoder():
    w = weights()
    w.pop("W_skip")
    plain = Dictionary(**w, activation=TopKActivation(3), apply_b_dec_to_input=False)
    made = SkipTranscoder.around(plain, torch.zeros(D_IN, D_OUT))
    assert torch.equal(made(activations()), plain(activations()))
    assert made.name == f"{plain.name}, skip"


def test_the_skip_alone_carries_gradients_where_no_latent_is_active():
    made, _ = transcoder(activation=JumpReLUActivation(torch.full((F,), 1e6)))
    made(activations()).sum().backward()
    expected = activations().sum(0, keepdim=True).t().expand(D_IN, D_OUT)
    torch.testing.assert_close(made.W_skip.grad, expected, atol=1e-4, rtol=1e-4)


class TestRefusals:
    def test_a_transposed_skip(self, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        with pytest.raises(ShapeError, match=r"W_skip must .* \[6, 5\]; got \[5, 6\]. Transpose"):
            transcoder(W_skip=torch.zeros(D_OUT, D_IN))

    def test_an_autoencoder(self):
        with pytest.raises(ValueRangeError, match=r"must write another site .* got mlp_in\.3"):
            transcoder(writes=READS)

    def test_an_encoder_that_subtracts_the_bias(self):
        w = weights()
        w.pop("W_skip")
        square = w | {"W_dec": torch.zeros(F, D_IN), "b_dec": torch.zeros(D_IN)}
        centred = Dictionary(**square, activation=TopKActivation(3))
        with pytest.raises(ValueRangeError, match="must see x itself"):
            SkipTranscoder.around(centred, torch.zeros(D_IN, D_IN))

    def test_activations_of_another_width(self):
        with pytest.raises(ShapeError, match=r"\[token, 6\]; got \[2, 5\]"):
            transcoder()[0].skip(torch.zeros(2, D_OUT))
