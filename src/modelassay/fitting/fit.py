"""`fit`: from recipes and activations to dictionaries."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from modelassay.activations.source import ActivationSource
from modelassay.core.errors import OutputExistsError
from modelassay.core.progress import SILENT, Progress, default_progress
from modelassay.core.provenance import Fact, Provenance
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.sparsifier import BatchSparsifier
from modelassay.fitting.bad_batches import CheckedBatches, finite_heldout, places_of
from modelassay.fitting.checkpoints import Checkpoint, has_checkpoint
from modelassay.fitting.distributed.processes import Processes, processes_of
from modelassay.fitting.finishing import (
    finish,
    heldout_tokens,
    heldout_tokens_if_any,
    sparsity_gap,
    warn_of_gap,
)
from modelassay.fitting.learner import Learner
from modelassay.fitting.learners import groups_of
from modelassay.fitting.logs import LogSink, open_logs
from modelassay.fitting.options import USUAL, TrainingOptions
from modelassay.fitting.plan import Plan
from modelassay.fitting.sites import SiteGroup, SiteView, columns_of, views_of
from modelassay.fitting.trainer import CheckpointPlan, Trainer
from modelassay.subjects.site import Site

DEFAULT_EPOCHS = 4
"""Passes over the fit side of the split where `tokens` is None (ours)."""


# The options are spelled once, in the implementation; the overloads only tell one from several.
@overload
def fit(  # pyright: ignore[reportOverlappingOverload]  # `site` is one of the next one's options
    recipes: Recipe,
    harvest: ActivationSource,
    *,
    site: list[Site] | list[str] | tuple[Site | str, ...],
    **options: Any,
) -> list[Dictionary]: ...
@overload
def fit(recipes: Recipe, harvest: ActivationSource, **options: Any) -> Dictionary: ...
@overload
def fit(
    recipes: Sequence[Recipe], harvest: ActivationSource, **options: Any
) -> list[Dictionary]: ...
def fit(  # noqa: PLR0913  # pyright: ignore[reportInconsistentOverload]
    recipes: Recipe | Sequence[Recipe],
    harvest: ActivationSource,
    *,
    site: Site | str | Sequence[Site | str] | None = None,
    tokens: int | None = None,
    batch_tokens: int = 2048,
    learning_rate: float | Sequence[float] | None = None,
    seed: int | Sequence[int] = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    log: str | Path | Sequence[LogSink] | None = None,
    device: str | torch.device = "cpu",
    latent_shards: int | None = None,
    options: TrainingOptions = USUAL,
    progress: Progress | None = None,
) -> Dictionary | list[Dictionary]:
    """Train dictionaries on the fit side of a harvest, all on one pass over the activations.

    Args:
        recipes: what to train.
        harvest: activations, with a document-level split.
        site: which of the harvest's sites; may be left out where there is only one. With several,
            each recipe is trained at each of them, on the same tokens in the same order; a model
            that makes the activations meanwhile runs once for all.
        tokens: seen in training, repeats counted; four epochs by default.
        batch_tokens: tokens of a step.
        learning_rate: one for all recipes, or one per recipe; by default
            `default_learning_rate` of each width and the run's length.
        seed: of the random starts: one for all recipes, or one per recipe. The first one also
            sets the order of the data.
        checkpoint: folder that keeps the run's state, written each minute, on Ctrl-C and at the
            end.
        resume: go on from the checkpoint; the result is bit for bit that of a run that was never
            stopped. Where there is no checkpoint yet, the run begins.
        log: a `.csv` or `.jsonl` file, a folder for both, or sinks of your own; closed at the end.
        device: where to train.
        latent_shards: None to train in this process alone. A number to train together with the
            other processes that `torchrun` started, each of which calls this with the same
            arguments: each dictionary is divided into so many parts, and each batch between as
            many processes as hold the same part. Losses and weights are those of one process but
            for rounding; a checkpoint may go on with other numbers.
        options: how to train: optimiser, schedules, precision, normalisation, dead latents.
        progress: where to report; a bar on a terminal by default.

    Returns:
        One dictionary for a single recipe at a single site; else a list with those of all recipes
        at the first site, then those at the second, and so on. They are of unscaled activations
        and have unit decoder rows (but see `TrainingOptions.normalisation`), ready for inference;
        whole on every process.

    Raises:
        TooFewTokensError: if there are too few tokens for one batch, or none held out.
        ProvenanceError: if the checkpoint belongs to a run of another configuration.
        OutputExistsError: if a checkpoint or log exists and `resume` is False.
        NonFiniteError: if activations hold NaN or Inf (but see `TrainingOptions.bad_batches`), or
            a loss diverges.
        KeyboardInterrupt: on Ctrl-C, once a checkpoint is written.
        WorkerError: if another process has ended before its time.
    """
    source = harvest.select("fit")
    plan = Plan.of(
        [recipes] if isinstance(recipes, Recipe) else recipes,
        site=harvest.find_all(site),
        tokens=DEFAULT_EPOCHS * source.n_tokens if tokens is None else tokens,
        batch_tokens=batch_tokens,
        learning_rate=learning_rate,
        seed=seed,
        options=options,
    )
    with processes_of(latent_shards, torch.device(device)) as (processes, where):
        dictionaries = _train(
            plan,
            harvest,
            folder=None if checkpoint is None else Path(checkpoint),
            resume=resume,
            log=log,
            progress=progress or default_progress(),
            processes=processes,
            where=where,
        )
    single = isinstance(recipes, Recipe) and (site is None or isinstance(site, Site | str))
    return dictionaries[0] if single else dictionaries


def _train(
    plan: Plan,
    harvest: ActivationSource,
    *,
    folder: Path | None,
    resume: bool,
    log: str | Path | Sequence[LogSink] | None,
    progress: Progress,
    processes: Processes,
    where: torch.device,
) -> list[Dictionary]:
    """Carry out a plan."""
    source, batch_tokens = harvest.select("fit"), plan.batch_tokens
    checked = _batches(plan, source, warns=processes.is_first)
    views = views_of(source, plan.sites, plan.options)
    configuration = {
        "subject": source.subject_fingerprint,
        **plan.as_json(),
        "activations": {str(view.site): view.fingerprint() for view in views},
        "device": where.type,
    }
    found = _checkpoint_to_go_on_from(folder, configuration, processes, resume=resume)
    groups = groups_of(plan, views, where, processes)
    heldout = _heldout(harvest, plan, views, groups)
    # One log of all processes' figures, which all of them have.
    to = log if processes.is_first else None
    logs = _sinks(to, keep_until=(found.step if found else 0) if resume else None)
    trainer = Trainer(
        groups,
        processes.stream(checked),
        schedule=plan.schedule,
        device=where,
        checkpoints=CheckpointPlan(directory=folder, configuration=configuration)
        if folder
        else None,
        logs=logs,
        processes=processes,
        checked=checked,
    )
    if found:
        trainer.load(found)
    try:
        trainer.run(progress if processes.is_first else SILENT)
    finally:
        for sink in logs:
            sink.close()

    provenance = Provenance.collect(
        seed=plan.seeds[0],
        device=str(where),
        subject=source.subject_name,
        subject_fingerprint=source.subject_fingerprint,
        corpus=source.origin,
        tokens=plan.schedule.steps * batch_tokens,
        batch_tokens=batch_tokens,
        **plan.options.facts(),
        **checked.facts(),
    )
    dictionaries: list[Dictionary] = []
    for view, group, tokens in zip(views, groups, heldout, strict=True):
        for learner, seed in zip(group.learners, plan.seeds, strict=True):
            dictionary, facts = _finished(learner, view, tokens, batch_tokens, processes)
            dictionary.subject_fingerprint = source.subject_fingerprint
            facts = provenance.facts | facts
            dictionary.provenance = replace(provenance, seed=seed, facts=facts)
            dictionaries.append(dictionary)
    return dictionaries


def _batches(plan: Plan, source: ActivationSource, *, warns: bool) -> CheckedBatches:
    """The batches of a run, the sites side by side."""
    stream = source.joint_stream(
        plan.sites,
        batch_tokens=plan.batch_tokens,
        generator=derived(plan.seeds[0], "order"),
        refuse_non_finite=plan.options.bad_batches == "stop",
    )
    return CheckedBatches(
        stream,
        policy=plan.options.bad_batches,
        steps=plan.schedule.steps,
        places=places_of(source, stream, columns_of(source, plan.sites)),
        warns=warns,
    )


def _heldout(
    harvest: ActivationSource, plan: Plan, views: Sequence[SiteView], groups: Sequence[SiteGroup]
) -> list[Tensor | None]:
    """Held-out tokens of each site, from one pass; None where none are held out."""
    # Looked up before training, not after it: a threshold needs held-out tokens at its end.
    needed = any(
        isinstance(learner.dictionary.activation, BatchSparsifier)
        for group in groups
        for learner in group.learners
    )
    find = heldout_tokens if needed else heldout_tokens_if_any
    joint = find(harvest, plan.sites)
    if joint is None:
        return [None] * len(views)
    policy = plan.options.bad_batches
    return [finite_heldout(joint[:, view.columns], view.site, policy) for view in views]


def _finished(
    learner: Learner,
    view: SiteView,
    heldout: Tensor | None,
    batch_tokens: int,
    processes: Processes,
) -> tuple[Dictionary, dict[str, Fact]]:
    """What a learner and those of other processes have learned, and what is to be said of it."""
    dictionary = processes.dictionary(learner)
    finish(dictionary, view.normalisation, heldout, unit_decoder=learner.training.unit_decoder)
    facts: dict[str, Fact] = {
        "site": str(view.site),
        "learning_rate": learner.learning_rate,
        "precision": learner.precision,
    }
    if heldout is not None:
        gap = sparsity_gap(dictionary, heldout, batch_tokens)
        facts |= gap.facts()
        if processes.is_first:
            warn_of_gap(learner.name, gap)
    return dictionary, facts


def _checkpoint_to_go_on_from(
    folder: Path | None, configuration: dict[str, Any], processes: Processes, *, resume: bool
) -> Checkpoint | None:
    if folder is None or not has_checkpoint(folder):
        return None
    if resume:
        return processes.read(folder, configuration)
    raise OutputExistsError(
        f"A new run's checkpoint folder must be empty; got {str(folder)!r} with a checkpoint. "
        "Pass resume=True to go on from it, or choose another folder."
    )


def _sinks(log: str | Path | Sequence[LogSink] | None, keep_until: int | None) -> list[LogSink]:
    if isinstance(log, str | Path):
        return list(open_logs(log, keep_until))
    return list(log or ())
