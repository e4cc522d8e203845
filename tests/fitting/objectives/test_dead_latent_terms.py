"""AuxK and the pre-activation loss for every kind of sparsifier: value and gradient by hand."""

import pytest
import torch
from torch import Tensor

from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.sparsifiers import (
    AbsTopKActivation,
    BatchTopKActivation,
    GroupMaxActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.objective import Forward, Objective
from modelassay.fitting.objectives.pre_activation import PreActivation

TOKENS, D, WIDTH, K = 12, 6, 20, 4
DEAD = (1, 5, 9, 17)
VARIANCE = 2.5
THRESHOLDS = torch.linspace(0.1, 1, WIDTH)
SPARSIFIERS: list[Sparsifier] = [
    TopKActivation(K),
    BatchTopKActivation(K),
    AbsTopKActivation(K),
    GroupMaxActivation(K),
    ReLUActivation(),
    JumpReLUActivation(THRESHOLDS),
]


def forward_of(sparsifier: Sparsifier, depth: float = 3.0) -> Forward:
    """A batch on which some latents are dead, by a bias of -depth."""
    draw = torch.Generator().manual_seed(0)
    b_enc = 0.1 * torch.randn(WIDTH, generator=draw)
    b_enc[list(DEAD)] = -depth
    W_enc = torch.randn(D, WIDTH, generator=draw)
    W_enc[:, list(DEAD)] *= 0.2
    dictionary = Dictionary(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=torch.randn(WIDTH, D, generator=draw),
        b_dec=torch.randn(D, generator=draw),
        activation=sparsifier,
    )
    x = torch.randn(TOKENS, D, generator=draw)
    codes = sparsifier.encode(
        EncoderBatch(
            x=x,
            W_enc=dictionary.W_enc,
            b_enc=dictionary.b_enc,
            centre=dictionary.b_dec,
            bandwidth=0.5,
        )
    )
    return Forward(
        dictionary=dictionary,
        activations=x,
        codes=codes,
        reconstruction=codes.decode(dictionary.W_dec) + dictionary.b_dec,
        total_variance=VARIANCE,
        dead=torch.tensor(DEAD),
        sparsity_factor=1.0,
    )


def gradients(objective: Objective, forward: Forward) -> dict[str, Tensor]:
    forward.dictionary.zero_grad()
    objective(forward).backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in forward.dictionary.named_parameters()
    }


def bar_by_hand(forward: Forward, pre: Tensor, token: int, latent: int) -> float:
    """What the latent would have to exceed, from the sparsifier's definition."""
    size = pre.abs()[token] if forward.dictionary.activation.signed else pre.relu()[token]
    match forward.dictionary.activation:
        case TopKActivation() | AbsTopKActivation():
            return float(size.sort(descending=True).values[K - 1])
        case BatchTopKActivation():
            return float(pre.relu().flatten().sort(descending=True).values[K * TOKENS - 1])
        case GroupMaxActivation():
            group = latent // (WIDTH // K)
            return float(size.view(K, WIDTH // K)[group].max())
        case JumpReLUActivation(threshold=threshold):
            return float(threshold[latent].detach())
        case _:
            return 0.0


@pytest.mark.parametrize("sparsifier", SPARSIFIERS, ids=lambda s: s.label)
def test_pre_activation_loss_is_the_mean_distance_from_firing(sparsifier: Sparsifier):
    forward = forward_of(sparsifier)
    dictionary = forward.dictionary
    pre = dictionary.pre_activations(forward.activations).detach()
    size = pre.abs() if sparsifier.signed else pre
    by_hand = sum(
        max(bar_by_hand(forward, pre, t, i) - float(size[t, i]), 0.0)
        * float(dictionary.W_dec[i].detach().norm())
        for t in range(TOKENS)
        for i in DEAD
    )
    expected = 7.0 * by_hand / TOKENS / VARIANCE
    assert expected > 0
    found = float(PreActivation(coefficient=7.0)(forward).detach())
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("objective", [AuxK(), PreActivation()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("sparsifier", SPARSIFIERS, ids=lambda s: s.label)
def test_every_dead_latent_and_nothing_else_is_taught(sparsifier: Sparsifier, objective: Objective):
    # Near 0, where some pre-activations are positive: AuxK's decoder learns from these alone.
    depth = -0.05 if sparsifier.compares_latents else 0.1
    forward = forward_of(sparsifier, depth)
    found = gradients(objective, forward)
    living = [i for i in range(WIDTH) if i not in DEAD]
    assert found.pop("b_dec").count_nonzero() == 0
    decoder = found.pop("W_dec")
    assert decoder[living].count_nonzero() == 0
    # AuxK reconstructs with the decoder; the pre-activation loss must not shrink it.
    assert bool(decoder[list(DEAD)].any(1).all()) == isinstance(objective, AuxK)
    thresholds = found.pop("activation.threshold", None)
    if thresholds is not None:
        assert thresholds[living].count_nonzero() == 0
        assert bool(thresholds[list(DEAD)].all()) == isinstance(objective, PreActivation)
    for by_latent in (found.pop("W_enc").t(), found.pop("b_enc").unsqueeze(1)):
        assert by_latent[living].count_nonzero() == 0
        assert bool(by_latent[list(DEAD)].any(1).all())
    assert not found


@pytest.mark.parametrize("sparsifier", SPARSIFIERS, ids=lambda s: s.label)
def test_pre_activation_loss_lifts_every_dead_latent(sparsifier: Sparsifier):
    found = gradients(PreActivation(), forward_of(sparsifier))
    if sparsifier.signed:
        return  # there it is the magnitude that grows: the bias is -3, so it falls
    assert bool((found["b_enc"][list(DEAD)] < 0).all())


NOT_SIGNED = [s for s in SPARSIFIERS if not s.signed]


@pytest.mark.parametrize("sparsifier", NOT_SIGNED, ids=lambda s: s.label)
def test_auxk_passes_the_rectifier_straight_through_where_it_would_teach_nothing(
    sparsifier: Sparsifier,
):
    forward = forward_of(sparsifier)  # all dead pre-activations are negative
    dead = list(DEAD)
    pre = forward.dictionary.pre_activations(forward.activations).detach()[:, dead]
    assert float(pre.max()) < 0
    residual = forward.residual().detach()
    spread = (residual - residual.mean(0)).square().sum()
    nothing_predicted = float(residual.square().sum() / spread) / 32
    for straight_through in (False, True):
        objective = AuxK(straight_through=straight_through)
        assert float(objective(forward).detach()) == pytest.approx(nothing_predicted, rel=1e-5)
        taught = gradients(objective, forward)["b_enc"][dead]
        teaches = straight_through or not sparsifier.compares_latents
        assert bool(taught.any()) == teaches
    # By hand: each token's d / 2 largest, each by how far its row lies along the residual.
    chosen = torch.zeros_like(pre).scatter(1, pre.topk(D // 2, dim=1).indices, 1.0)
    along = residual @ forward.dictionary.W_dec.detach()[dead].T
    expected = -2 * (chosen * along).sum(0) / spread / 32
    assert torch.allclose(taught, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("objective", [AuxK(), PreActivation()], ids=lambda o: type(o).__name__)
def test_terms_are_zero_while_no_latent_is_dead(objective: Objective):
    forward = forward_of(ReLUActivation())
    none = Forward(
        dictionary=forward.dictionary,
        activations=forward.activations,
        codes=forward.codes,
        reconstruction=forward.reconstruction,
        total_variance=VARIANCE,
        dead=torch.zeros(0, dtype=torch.int64),
        sparsity_factor=1.0,
    )
    assert float(objective(none)) == 0
