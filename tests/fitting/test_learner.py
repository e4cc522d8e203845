"""One step against a dense float64 reference."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modelassay.decompositions import kernels_torch
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import (
    AbsTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.fitting.learner import Learner
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.objective import Objective
from modelassay.fitting.objectives.reconstruction import Reconstruction
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale

D, WIDTH, K, TOKENS = 10, 48, 4, 30
JUMP = JumpReLU(width=WIDTH, target_l0=float(K), bandwidth=0.95, window_stride=1)
RECIPES = [
    TopK(width=WIDTH, k=K),
    TopK(width=WIDTH, k=K, frozen_decoder=True),
    BatchTopK(width=WIDTH, k=K),
    ReLUL1(width=WIDTH, l1_coefficient=0.5),
    AbsTopK(width=WIDTH, k=K),
    GroupMax(width=WIDTH, k=K),
    Matryoshka(width=WIDTH, k=K, prefixes=(5, 20, WIDTH)),
    Matryoshka(width=WIDTH, k=K, prefixes=(1, WIDTH), sparsifier="topk"),
    # Thresholds about which half of the batch's pre-activations lie within the bandwidth; high
    # ones leave few active, which is the sparse way through, low ones many, the dense way.
    JumpReLU(
        width=WIDTH, target_l0=float(K), bandwidth=0.95, window_stride=1, initial_threshold=2.7
    ),
    JumpReLU(
        width=WIDTH, target_l0=float(K), bandwidth=0.95, window_stride=1, initial_threshold=0.32
    ),
    JumpReLU(width=WIDTH, penalty="step", bandwidth=0.95, window_stride=1, initial_threshold=2.7),
    JumpReLU(width=WIDTH, penalty="tanh", bandwidth=0.95, window_stride=1, initial_threshold=2.7),
]


def rows(seed: int = 0, tokens: int = TOKENS) -> Tensor:
    return torch.randn(tokens, D, generator=torch.Generator().manual_seed(seed)) + 0.5


def learner_of(
    recipe: Recipe, objectives: list[Objective] | None = None, rate: float = 1e-2
) -> Learner:
    """A learner as `fit` would make it, or with other terms of its loss."""
    mean = torch.full((D,), 0.5)
    training = training_of(recipe)
    if objectives is not None:
        training = replace(training, objectives=tuple(objectives))
    return Learner(
        name="under test",
        dictionary=recipe.build(D, D, mean, torch.Generator().manual_seed(1), None),
        training=training,
        schedule=Schedule(steps=100),
        learning_rate=rate,
        dead_window=200,
        data=DataScale(mean=mean, total_variance=10.0),
        workspace=torch.empty(7 * WIDTH),
    )


class Step(torch.autograd.Function):
    """H(z - θ), its gradient to θ as the paper defines it, written for dense matrices."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(z, theta)
        ctx.width = width
        return (z > theta).to(z)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        z, theta = ctx.saved_tensors
        rectangle = ((z - theta) / ctx.width).abs() < 0.5
        return None, -(grad_outputs[0] * rectangle / ctx.width).sum(0), None


def reference_values(recipe: Recipe, weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Latent values, and for JumpReLU which are active: dense, selection by sorting."""
    pre = (x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
    match recipe:
        case TopK() | Matryoshka(sparsifier="topk"):
            return [pre.relu() * (pre >= pre.sort(descending=True).values[:, K - 1 : K])]
        case BatchTopK() | Matryoshka():
            return [
                pre.relu() * (pre >= pre.flatten().sort(descending=True).values[K * TOKENS - 1])
            ]
        case AbsTopK():
            bound = pre.abs().sort(descending=True).values[:, K - 1 : K]
            return [pre * (pre.abs() >= bound)]
        case GroupMax():
            groups = pre.relu().view(TOKENS, K, WIDTH // K)
            best = groups.max(2, keepdim=True).values
            return [(groups * (groups >= best)).view(TOKENS, WIDTH)]
        case JumpReLU(bandwidth=bandwidth):
            theta = weights["activation.threshold"]
            active = Step.apply(pre, theta, bandwidth)
            # z H: the paper's -(θ/ε) rect is the step's -(1/ε) rect at z = θ.
            jumped = pre * active.detach() + theta * (active - active.detach())
            return [jumped, active]
        case _:
            return [pre.relu()]


def reference_loss(recipe: Recipe, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The first step's loss, written densely; the first of ten steps of a penalty's warm-up."""
    values, *active = reference_values(recipe, weights, x)
    prefixes = recipe.prefixes if isinstance(recipe, Matryoshka) else (WIDTH,)
    loss = torch.zeros((), dtype=torch.float64)
    for prefix in prefixes:
        left = x - values[:, :prefix] @ weights["W_dec"][:prefix] - weights["b_dec"]
        loss = loss + left.square().sum(1).mean() / 10 / len(prefixes)
    match recipe:
        case ReLUL1():
            penalty = (values * weights["W_dec"].norm(dim=1)).sum(1).mean() / 10
            return loss + 0.5 * 0.1 * penalty
        case JumpReLU(penalty="quadratic"):
            return loss + 0.1 * (active[0].sum(1).mean() / K - 1).square()
        case JumpReLU(penalty="step"):
            return loss + 0.1 * active[0].sum(1).mean()
        case JumpReLU(penalty="tanh"):
            counted = torch.tanh(4 * values * weights["W_dec"].norm(dim=1))
            return loss + 0.1 * counted.sum(1).mean()
        case _:
            return loss


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_loss_and_gradients_equal_the_dense_reference(recipe: Recipe):
    learner = learner_of(recipe)
    x = rows()
    forward = learner.forward(x, 0)
    loss = torch.stack([term(forward) for term in learner.training.objectives]).sum()
    loss.backward()
    weights = {
        name: parameter.detach().double().requires_grad_()
        for name, parameter in learner.dictionary.named_parameters()
    }
    expected = reference_loss(recipe, weights, x.double())
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in learner.parameters.items():
        assert parameter.grad is not None
        assert parameter.grad.count_nonzero() > 0, name
        assert torch.allclose(parameter.grad.double(), weights[name].grad, atol=1e-6, rtol=1e-5), (
            name
        )


def test_thresholds_decide_which_way_a_batch_goes():
    high, low = (
        learner_of(replace(JUMP, initial_threshold=threshold)).forward(rows(), 0)
        for threshold in (2.7, 0.32)
    )
    assert high.indices is not None
    assert low.indices is None


def test_thresholds_never_fall_below_0_and_learn_at_their_own_rate():
    learner = learner_of(replace(JUMP, initial_threshold=0.0, threshold_rate=3.0))
    for step in range(20):
        learner.step(-rows(step), step)
        threshold = learner.dictionary.get_parameter("activation.threshold").detach()
        assert float(threshold.min()) >= 0
    weights, thresholds = learner.optimizer.param_groups
    assert thresholds["lr"] == pytest.approx(3 * weights["lr"])
    assert [p.shape for p in thresholds["params"]] == [(WIDTH,)]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_steps_lower_the_loss_and_keep_the_decoder_as_asked(recipe: Recipe):
    learner = learner_of(recipe, [learner_of(recipe).training.objectives[0], AuxK()])
    start = learner.dictionary.W_dec.detach().clone()
    losses = [float(learner.step(rows(), step)[0]) for step in range(60)]
    assert losses[-1] < 0.8 * losses[0]
    norms = learner.dictionary.W_dec.norm(dim=1)
    if recipe.frozen_decoder:
        assert torch.equal(learner.dictionary.W_dec, start)
    elif isinstance(recipe, ReLUL1):
        assert (norms - 0.1).abs().max() > 0.01
    else:
        assert not torch.equal(learner.dictionary.W_dec, start)
        assert torch.allclose(norms, torch.ones(WIDTH), atol=1e-6)


def test_decoder_update_is_orthogonal_to_its_rows():
    learner = learner_of(TopK(width=WIDTH, k=K), [Reconstruction()])
    before = learner.dictionary.W_dec.detach().clone()
    learner.step(rows(), 0)
    gradient = learner.dictionary.W_dec.grad
    assert gradient is not None
    assert float(torch.linalg.vecdot(gradient, before).abs().max()) < 1e-7
    assert float(gradient.abs().max()) > 1e-4


def test_gradients_are_clipped_to_norm_1():
    learner = learner_of(TopK(width=WIDTH, k=K), [Reconstruction()])
    learner.step(1000 * rows(), 0)
    squares = [p.grad.square().sum() for p in learner.parameters.values() if p.grad is not None]
    assert float(sum(squares)) ** 0.5 == pytest.approx(1, rel=1e-4)


def test_learning_rate_follows_the_schedule():
    learner = learner_of(TopK(width=WIDTH, k=K), [Reconstruction()], rate=0.5)
    for step, rate in [(0, 0.1), (4, 0.5), (99, 0.5 / 20)]:
        learner.step(rows(), step)
        assert learner.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_measurement_equals_the_definitions():
    learner = learner_of(BatchTopK(width=WIDTH, k=K), [Reconstruction()])
    x = rows()
    loss, forward = learner.step(x, 0)
    row = learner.measure(loss, forward, 0)
    error = (x - forward.reconstruction.detach()).square().sum()
    assert row.explained_variance == pytest.approx(1 - float(error / (x - 0.5).square().sum()))
    assert row.loss == pytest.approx(float(error) / TOKENS / 10, rel=1e-5)
    assert row.l0 == pytest.approx(K)
    assert (row.step, row.tokens) == (1, TOKENS)
    assert row.learning_rate == pytest.approx(1e-2 / 5)
    assert row.dead_share == 0


def test_census_hands_the_dead_latents_to_auxk():
    learner = learner_of(TopK(width=WIDTH, k=K), [Reconstruction(), AuxK()])
    with torch.no_grad():
        learner.dictionary.b_enc[:5] = -100
    for step in range(7):  # 210 tokens, more than the window of 200
        learner.step(rows(step), step)
    assert len(learner.dead) == 0
    learner.census()
    assert set(range(5)) <= set(learner.dead.tolist())
    _, forward = learner.step(rows(9), 9)
    assert torch.equal(forward.dead, learner.dead)


def test_auxk_revives_latents_that_would_stay_dead():
    shares = []
    for objectives in ([Reconstruction()], [Reconstruction(), AuxK()]):
        learner = learner_of(TopK(width=WIDTH, k=2), objectives)
        learner.training = replace(learner.training, matches_start=False)  # silent as made
        with torch.no_grad():
            # Positive on many tokens but never among the largest: silent, not beyond help.
            learner.dictionary.W_enc[:, : WIDTH // 2] *= 0.1
        for step in range(100):
            loss, forward = learner.step(rows(step % 5), step)
            learner.census()
        shares.append(learner.measure(loss, forward, 99).dead_share)
    without, with_auxk = shares
    assert without > 0.4
    assert with_auxk < without / 2


@pytest.mark.parametrize("free_decoder", [False, True])
def test_the_first_reconstructions_are_of_the_length_that_errs_least(free_decoder: bool):
    learner = learner_of(TopK(width=WIDTH, k=K, free_decoder=free_decoder), rate=0.0)
    learner.step(rows(), 0)
    reconstruction = learner.forward(rows(), 1).reconstruction.detach().double()
    centre = learner.dictionary.b_dec.detach().double()
    decoded, centred = reconstruction - centre, rows().double() - centre
    errors = [float((centred - factor * decoded).square().sum()) for factor in (0.98, 1.0, 1.02)]
    assert errors[1] < min(errors[0], errors[2])


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_state_taken_over_by_another_learner_goes_on_bit_for_bit(recipe: Recipe):
    one, other = learner_of(recipe), learner_of(recipe)
    for step in range(8):
        one.step(rows(step), step)
    one.census()
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    for step in range(8, 16):
        one.step(rows(step), step)
        other.step(rows(step), step)
    assert one.state().keys() == other.state().keys()
    for name, tensor in one.state().items():
        assert torch.equal(tensor, other.state()[name]), name


class _HostSyncs(TorchDispatchMode):
    """Counts operations that make the host wait for an accelerator."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in self.WAITING):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "recipe", [RECIPES[0], RECIPES[3], RECIPES[4], RECIPES[5], RECIPES[7]], ids=str
)
def test_no_step_waits_for_the_device(recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    # As on an accelerator: on the CPU a look at the values makes nobody wait.
    monkeypatch.setattr(kernels_torch, "_LOOKS_FREELY", ())
    learner = learner_of(recipe)
    learner.step(rows(), 0)
    with _HostSyncs() as syncs:
        loss, forward = learner.step(rows(), 1)
        assert syncs.seen == []
        learner.measure(loss, forward, 1)  # which does wait: the counter counts
        assert syncs.seen != []
