"""What every dictionary's training must fulfil, whatever its loss."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from modelassay.core.errors import NonFiniteError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from modelassay.fitting.conformance_case import (
    Case,
    Finding,
    far_apart,
    planted_rows,
    short_fit,
)
from modelassay.fitting.conformance_codes import must_raise, silence
from modelassay.fitting.learner import Learner

_SHORT = 20  # steps of a run that is looked at, not judged: ours
_STOP = 8  # the step after which a run is stopped: ours
_SCALE = 1024.0  # a power of two: rounding stays the same


def teaches_every_parameter(case: Case) -> Finding:
    """After a step, every trained parameter has a finite gradient other than 0."""
    learner = case.learner()
    learner.dead = torch.arange(min(4, learner.dictionary.width))
    learner.step(case.batch(0), 0)
    without = [name for name, p in learner.parameters.items() if not _is_taught(p.grad)]
    return Finding(
        passed=not without,
        found=f"none at {', '.join(without)}" if without else f"{len(learner.parameters)} taught",
    )


def _is_taught(gradient: Tensor | None) -> bool:
    return (
        gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.count_nonzero())
    )


def learns_by_every_term(case: Case) -> Finding:
    """The gradient of each term of the loss alone reaches a parameter: none is silent."""
    learner = case.learner()
    learner.dead = torch.arange(min(4, learner.dictionary.width))
    forward = learner.forward(case.batch(0), 0)
    parameters = [p for p in learner.dictionary.parameters() if p.requires_grad]
    silent: list[str] = []
    for objective in learner.training.objectives:
        value = objective(forward)
        gradients = (
            torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            if value.requires_grad
            else ()
        )
        if not any(_is_taught(gradient) for gradient in gradients):
            silent.append(type(objective).__name__)
    n = len(learner.training.objectives)
    return Finding(
        passed=not silent, found=f"silent: {', '.join(silent)}" if silent else f"{n} terms"
    )


def outlives_dead_latents(case: Case) -> Finding:
    """A step where all latents are dead leaves finite weights."""
    learner = case.learner()
    silence(learner.dictionary)
    learner.dead = torch.arange(learner.dictionary.width)
    loss, _ = learner.step(case.batch(0), 0)
    finite = all(bool(p.isfinite().all()) for p in learner.parameters.values())
    return Finding(passed=finite and bool(loss.isfinite()), found=f"loss {float(loss):.3g}")


def lowers_the_loss(case: Case) -> Finding:
    """Held-out tokens are explained, better than at the first look."""
    x = case.heldout
    left = (x - case.dictionary(x)).square().sum() / (x - x.mean(0)).square().sum()
    explained = 1 - float(left.detach())
    # The least of the later ones: what is drawn for a step can make a single loss larger.
    first, least = case.losses[0], min(case.losses[1:])
    return Finding(
        passed=least < first and explained > 0,
        found=f"loss from {first:.3g} to {least:.3g}, {explained:.3f} explained",
    )


def has_unit_directions(case: Case) -> Finding:
    """What `fit` returns has directions of unit length."""
    norms = case.dictionary.directions.norm(dim=1)
    apart = far_apart(norms, torch.ones_like(norms))
    return Finding(passed=apart < 1e-5, found=f"lengths {norms.min():.6f} to {norms.max():.6f}")


def goes_on_bit_for_bit(case: Case) -> Finding:
    """A run that was stopped and taken up from a file ends as one that was not."""
    whole, stopped, resumed = case.learner(), case.learner(), case.learner()
    _run(whole, case, 0, _SHORT)
    _run(stopped, case, 0, _STOP)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = {name: tensor.contiguous() for name, tensor in stopped.state().items()}
        write_checkpoint(folder, Checkpoint(configuration={}, step=_STOP, tensors=state, state={}))
        resumed.load_state(read_checkpoint(folder, {}).tensors)
    _run(resumed, case, _STOP, _SHORT)
    one, other = whole.state(), resumed.state()
    differing = [n for n in one if n not in other or not torch.equal(one[n], other[n])]
    return Finding(
        passed=not differing and one.keys() == other.keys(),
        found=f"differing: {', '.join(differing)}" if differing else f"{len(one)} tensors",
    )


def _run(learner: Learner, case: Case, start: int, end: int) -> None:
    for step in range(start, end):
        _, forward = learner.step(case.batch(step), step)
        if step % 5 == 4:  # as the trainer does, more seldom
            learner.census()
            learner.resample(forward, step + 1)


def ignores_the_unit(case: Case) -> Finding:
    """Activations in another unit give the same dictionary, in that unit."""
    rows = planted_rows(case.seed)
    small, large = (_fitted(case, factor * rows) for factor in (1.0, _SCALE))
    x = case.heldout
    apart = far_apart(_SCALE * small.encode(x).dense(), large.encode(_SCALE * x).dense())
    return Finding(passed=apart < 1e-4, found=f"relative difference {apart:.1e}")


def _fitted(case: Case, rows: Tensor) -> Dictionary:
    return short_fit(case.recipe, rows, seed=case.seed, steps=_SHORT)


def stops_at_nan(case: Case) -> Finding:
    """A fit to activations that are no numbers ends with an error."""
    rows = planted_rows(case.seed)
    rows[5, 0] = float("nan")
    return must_raise(NonFiniteError, lambda: _fitted(case, rows))
