"""Probing the checkpoints of a training run, on the same items and with the same controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.probes.items import read_activations
from modelassay.observe.probes.sweep import Cell, probe_all, score_of_bag, score_of_token
from modelassay.observe.probes.sweep_items import (
    N_ITEMS,
    N_RESAMPLES,
    TokenConcept,
    draw_items,
    together,
)
from modelassay.observe.probes.training_history import TrainingHistory
from modelassay.subjects.null_twins import null_twin
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model at one step of its training."""

    step: int
    name: str
    load: Callable[[], Subject]
    """Called when it is the checkpoint's turn: only one model is in memory at a time."""


def probe_history(
    checkpoints: Sequence[Checkpoint],
    contexts: TokenizedCorpus,
    concepts: Sequence[TokenConcept],
    sites: Sequence[Site | str] = (),
    *,
    n_items: int = N_ITEMS,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    progress: Progress = SILENT,
) -> TrainingHistory:
    """Probe every checkpoint for every concept at every site, on the same items.

    Args:
        sites: by default the stream that enters the first block and the one after every block.
        n_items: of each concept, for training and testing together.

    The null twin is the checkpoint at step 0; where the first one is later, it is the last
    checkpoint with its weights drawn anew.

    Raises:
        ValueRangeError: if there is no checkpoint, or two of one step.
        TooFewTokensError: if no concept has enough tokens.
        UnknownNameError: if a checkpoint has no such site.
    """
    ordered = _in_order(checkpoints)
    items = [
        draw_items(contexts, c, n_items=n_items, n_resamples=n_resamples, seed=seed)
        for c in concepts
    ]
    if not items:
        raise TooFewTokensError("A history needs a concept; got none. Give at least one.")
    places = together(items, contexts)
    columns: list[list[Tensor]] = []  # score, task and validation of each step
    twin: Tensor | None = None
    named: tuple[str, ...] = ()
    with progress.task("Probing", total=len(ordered), unit="checkpoints") as task:
        for checkpoint in ordered:
            task.now(checkpoint.name)
            subject = checkpoint.load()
            read = read_activations(subject, places, sites or _streams(subject))
            named = tuple(map(str, read))
            activations = {site: data.activations for site, data in read.items()}
            columns.append(_stacked(probe_all(items, activations)))
            if checkpoint is ordered[-1] and ordered[0].step > 0:
                drawn = null_twin(
                    subject, "reinitialised", keep_embeddings=False,
                    generator=derived(seed, "null twin"),
                )  # fmt: skip
                there = read_activations(drawn, places, list(read))
                twin = _stacked(probe_all(items, {s: d.activations for s, d in there.items()}))[0]
            task.advance(1)
    scores, task_scores, validation = (
        torch.stack([step[part] for step in columns], 2) for part in range(3)
    )
    return TrainingHistory(
        subject=ordered[-1].name,
        steps=tuple(c.step for c in ordered),
        sites=named,
        concepts=tuple(each.name for each in items),
        descriptions=tuple(each.description for each in items),
        graded=tuple(each.graded for each in items),
        n_train=tuple(len(each.train) for each in items),
        n_test=tuple(len(each.test) for each in items),
        n_test_groups=tuple(len(each.groups[each.test].unique()) for each in items),
        null="the model at step 0" if twin is None else "the last model with weights drawn anew",
        scores=scores, task=task_scores, validation=validation,
        token=torch.stack([score_of_token(each) for each in items]),
        bag=torch.stack([score_of_bag(each, contexts) for each in items]),
        twin=scores[:, :, 0] if twin is None else twin,
    )  # fmt: skip


def _in_order(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
    steps = [checkpoint.step for checkpoint in ordered]
    if not steps or len(set(steps)) < len(steps):
        raise ValueRangeError(
            f"Checkpoints must be at least one, each of another step; got the steps {steps}. "
            "Give each step once."
        )
    return ordered


def _streams(subject: Subject) -> list[str]:
    return ["resid_pre.0", *(f"resid_post.{layer}" for layer in range(subject.n_layers))]


def _stacked(cells: Sequence[Sequence[Cell]]) -> list[Tensor]:
    """Score, control task and validation of one checkpoint's cells, by concept and site."""
    return [
        torch.stack([torch.stack([cell.score for cell in row]) for row in cells]),
        torch.stack([torch.stack([cell.task for cell in row]) for row in cells]),
        torch.tensor([[cell.validation for cell in row] for row in cells]),
    ]
