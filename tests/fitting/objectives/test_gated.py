"""Where the terms that teach gates lead."""

import pytest
import torch
from torch import Tensor

from modelassay.core.randomness import generator
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.recipes import Gated, TopK
from modelassay.fitting.objectives.gated import GateL1, GateReconstruction
from modelassay.fitting.objectives.objective import Forward, Objective
from modelassay.fitting.objectives.reconstruction import Reconstruction

D, WIDTH, TOKENS, VARIANCE = 6, 20, 30, 4.0


def forward_of(shift: float, prefixes: tuple[int, ...] = ()) -> Forward:
    dictionary = Gated(width=WIDTH).build(D, D, torch.zeros(D), generator(1), None)
    dictionary.b_enc.data.fill_(shift)
    x = torch.randn(TOKENS, D, generator=generator(2))
    codes = dictionary.activation.encode(
        EncoderBatch(x=x, W_enc=dictionary.W_enc, b_enc=dictionary.b_enc, centre=dictionary.b_dec)
    )
    return Forward(
        dictionary=dictionary,
        activations=x,
        codes=codes,
        reconstruction=codes.decode(dictionary.W_dec) + dictionary.b_dec,
        total_variance=VARIANCE,
        dead=torch.zeros(0, dtype=torch.int64),
        sparsity_factor=0.5,
        prefixes=prefixes,
    )


def gates_of(forward: Forward) -> Tensor:
    return forward.dictionary.pre_activations(forward.activations).detach().double().relu()


@pytest.mark.parametrize("shift", [-1.5, 0.5])  # few gates open, and many
@pytest.mark.parametrize("prefixes", [(), (4, 10, WIDTH)])
def test_terms_equal_their_formulas(shift: float, prefixes: tuple[int, ...]):
    forward = forward_of(shift, prefixes)
    gates = gates_of(forward)
    ends = prefixes or (WIDTH,)
    paid = sum(float(gates[:, :m].sum()) for m in ends) / len(ends)
    expected = 3.0 * 0.5 * paid / TOKENS / VARIANCE
    assert float(GateL1(coefficient=3.0)(forward).detach()) == pytest.approx(expected, rel=1e-5)
    W_dec, x = forward.dictionary.W_dec.detach().double(), forward.activations.double()
    left = sum(float((x - gates[:, :m] @ W_dec[:m]).square().sum()) for m in ends) / len(ends)
    assert float(GateReconstruction()(forward).detach()) == pytest.approx(
        left / TOKENS / VARIANCE, rel=1e-5
    )


@pytest.mark.parametrize("shift", [-1.5, 0.5])
@pytest.mark.parametrize("term", [GateL1(coefficient=1.0), GateReconstruction()])
def test_gates_alone_learn_from_them(term: Objective, shift: float):
    forward = forward_of(shift)
    term(forward).backward()
    reached = {
        name
        for name, parameter in forward.dictionary.named_parameters()
        if parameter.grad is not None and parameter.grad.count_nonzero() > 0
    }
    # b_dec as what the encoder subtracts, not as the decoder's.
    assert reached == {"W_enc", "b_enc", "b_dec"}


def test_the_reconstruction_by_gates_moves_no_decoder_bias_but_through_the_encoder():
    forward = forward_of(0.5)
    GateReconstruction()(forward).backward()
    dictionary = forward.dictionary
    assert dictionary.b_dec.grad is not None
    assert dictionary.b_enc.grad is not None
    through_encoder = -(dictionary.W_enc.detach() @ dictionary.b_enc.grad)
    assert torch.allclose(dictionary.b_dec.grad, through_encoder, atol=1e-6)


def test_values_alone_teach_the_magnitudes():
    forward = forward_of(0.5)
    Reconstruction()(forward).backward()
    for name in ("activation.log_gain", "activation.offset", "W_dec"):
        gradient = forward.dictionary.get_parameter(name).grad
        assert gradient is not None
        assert gradient.count_nonzero() > 0


def test_latents_without_gates_are_refused():
    forward = forward_of(0.5)
    plain = TopK(width=WIDTH, k=2).build(D, D, torch.zeros(D), generator(1), None)
    codes = plain.activation.encode(
        EncoderBatch(x=forward.activations, W_enc=plain.W_enc, b_enc=plain.b_enc)
    )
    bare = Forward(
        dictionary=plain,
        activations=forward.activations,
        codes=codes,
        reconstruction=codes.decode(plain.W_dec),
        total_variance=VARIANCE,
        dead=forward.dead,
        sparsity_factor=1.0,
    )
    with pytest.raises(TypeError, match="must have latents with gates; got none"):
        GateReconstruction()(bare)
