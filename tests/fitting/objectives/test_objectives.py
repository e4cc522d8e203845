"""Each term against its formula in float64, and where its gradient goes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from modelassay.decompositions.batch import BatchCodes
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import TopKActivation
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.l1 import L1
from modelassay.fitting.objectives.objective import Forward, Objective
from modelassay.fitting.objectives.reconstruction import Reconstruction

TOKENS, D, WIDTH, K = 12, 6, 20, 3
VARIANCE = 2.5


def dictionary_of(seed: int) -> Dictionary:
    draw = torch.Generator().manual_seed(seed)
    return Dictionary(
        W_enc=torch.randn(D, WIDTH, generator=draw),
        b_enc=torch.randn(WIDTH, generator=draw),
        W_dec=torch.randn(WIDTH, D, generator=draw),
        b_dec=torch.randn(D, generator=draw),
        activation=TopKActivation(K),
    )


def forward_of(seed: int, dead: tuple[int, ...] = (), sparsity_factor: float = 1.0) -> Forward:
    dictionary = dictionary_of(seed)
    x = torch.randn(TOKENS, D, generator=torch.Generator().manual_seed(seed + 1))
    values, indices = dictionary.pre_activations(x).topk(K)
    values = values.relu()
    codes = torch.zeros(TOKENS, WIDTH).scatter(1, indices, values)
    return Forward(
        dictionary=dictionary,
        activations=x,
        codes=BatchCodes(values=values, indices=indices),
        reconstruction=codes @ dictionary.W_dec + dictionary.b_dec,
        total_variance=VARIANCE,
        dead=torch.tensor(dead, dtype=torch.int64),
        sparsity_factor=sparsity_factor,
    )


def gradients(objective: Objective, forward: Forward) -> dict[str, Tensor]:
    dictionary = forward.dictionary
    objective(forward).backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in dictionary.named_parameters()
    }


@given(st.integers(0, 10_000))
def test_reconstruction_is_the_share_of_variance_left(seed: int):
    forward = forward_of(seed)
    by_hand = sum(
        float((x - r) @ (x - r))
        for x, r in zip(
            forward.activations.double(), forward.reconstruction.detach().double(), strict=True
        )
    )
    assert float(Reconstruction()(forward).detach()) == pytest.approx(
        by_hand / TOKENS / VARIANCE, rel=1e-5
    )


@given(st.integers(0, 10_000), st.floats(0.1, 1))
def test_l1_is_the_mean_sum_of_values_times_norms(seed: int, factor: float):
    forward = forward_of(seed, sparsity_factor=factor)
    norms = [float(row.detach().double().norm()) for row in forward.dictionary.W_dec]
    assert forward.indices is not None
    by_hand = sum(
        float(forward.values[t, slot].detach()) * norms[int(forward.indices[t, slot])]
        for t in range(TOKENS)
        for slot in range(K)
    )
    expected = 7.0 * factor * by_hand / TOKENS / VARIANCE
    assert float(L1(coefficient=7.0)(forward).detach()) == pytest.approx(expected, rel=1e-5)


def auxk_by_hand(forward: Forward) -> float:
    """The definition, one token and one latent at a time."""
    dictionary, x = forward.dictionary, forward.activations.double()
    W_enc, b_enc = dictionary.W_enc.detach().double(), dictionary.b_enc.detach().double()
    W_dec, b_dec = dictionary.W_dec.detach().double(), dictionary.b_dec.detach().double()
    residual = x - forward.reconstruction.detach().double()
    dead = forward.dead.tolist()
    left = spread = 0.0
    for t in range(TOKENS):
        values = {i: float((x[t] - b_dec) @ W_enc[:, i] + b_enc[i]) for i in dead}
        predicted = torch.zeros(D, dtype=torch.float64)
        for i in sorted(dead, key=lambda i: -values[i])[: min(D // 2, len(dead))]:
            predicted += max(values[i], 0.0) * W_dec[i]
        left += float((residual[t] - predicted).square().sum())
        spread += float((residual[t] - residual.mean(0)).square().sum())
    return left / spread / 32


@pytest.mark.parametrize("dead", [(4,), (0, 7), (1, 2, 3, 5, 8, 13, 19)])
@given(seed=st.integers(0, 10_000))
def test_auxk_is_the_share_of_the_residuals_variance_left(dead: tuple[int, ...], seed: int):
    forward = forward_of(seed, dead)
    assert float(AuxK()(forward).detach()) == pytest.approx(auxk_by_hand(forward), rel=1e-4)


def test_auxk_is_zero_while_no_latent_is_dead():
    forward = forward_of(0)
    assert float(AuxK()(forward).detach()) == 0


def test_auxk_teaches_dead_latents_alone():
    dead = (1, 5, 9, 17)
    found = gradients(AuxK(), forward_of(3, dead))
    living = [i for i in range(WIDTH) if i not in dead]
    assert found["b_dec"].count_nonzero() == 0
    for by_latent in (found["W_enc"].t(), found["b_enc"], found["W_dec"]):
        assert by_latent[living].count_nonzero() == 0
        assert by_latent[list(dead)].count_nonzero() > 0


def test_reconstruction_teaches_every_parameter():
    for name, gradient in gradients(Reconstruction(), forward_of(4)).items():
        assert gradient.count_nonzero() > 0, name


def test_l1_teaches_encoder_and_decoder():
    found = gradients(L1(coefficient=1.0), forward_of(5))
    for name in ("W_enc", "b_enc", "W_dec"):
        assert found[name].count_nonzero() > 0, name
