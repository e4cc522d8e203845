"""`fit`: from recipes and activations to dictionaries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch

from modelassay.activations.source import ActivationSource
from modelassay.activations.statistics import Moments
from modelassay.core.errors import OutputExistsError
from modelassay.core.progress import SILENT, Progress, default_progress
from modelassay.core.provenance import Provenance, hash_tensors
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.sparsifier import BatchSparsifier
from modelassay.fitting.checkpoints import Checkpoint, has_checkpoint
from modelassay.fitting.dead_latent_policies import with_dead_latent_policy
from modelassay.fitting.dead_latents import window_tokens
from modelassay.fitting.distributed.processes import ONE_PROCESS, Processes, processes_of
from modelassay.fitting.finishing import (
    finish,
    heldout_tokens,
    heldout_tokens_if_any,
    sparsity_gap,
    warn_of_gap,
)
from modelassay.fitting.learner import DataScale, Learner
from modelassay.fitting.logs import LogSink, open_logs
from modelassay.fitting.normalisation import input_scale
from modelassay.fitting.options import USUAL, TrainingOptions
from modelassay.fitting.plan import Plan
from modelassay.fitting.trainer import CheckpointPlan, Trainer
from modelassay.fitting.training import training_of
from modelassay.fitting.whitening import Whitening
from modelassay.subjects.site import Site

DEFAULT_EPOCHS = 4
"""Passes over the fit side of the split where `tokens` is None (ours)."""
CHUNK_TOKENS = 1024
"""Tokens whose pre-activations are held at once on CPU: they stay in its cache (ours)."""


# The options are spelled once, in the implementation; the overloads only tell one from several.
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
    site: Site | str | None = None,
    tokens: int | None = None,
    batch_tokens: int = 2048,
    learning_rate: float | None = None,
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
        recipes: what to train. A single recipe gives a single dictionary.
        harvest: activations, with a document-level split.
        site: which of the harvest's sites; may be left out where there is only one.
        tokens: seen in training, repeats counted; four epochs by default.
        batch_tokens: tokens of a step.
        learning_rate: by default `default_learning_rate` of each width and the run's length.
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
        Dictionaries of unscaled activations with unit decoder rows (but see
        `TrainingOptions.normalisation`), ready for inference; whole on every process.

    Raises:
        TooFewTokensError: if there are too few tokens for one batch, or none held out.
        ProvenanceError: if the checkpoint belongs to a run of another configuration.
        OutputExistsError: if a checkpoint or log exists and `resume` is False.
        NonFiniteError: if activations hold NaN or Inf, or a loss diverges.
        KeyboardInterrupt: on Ctrl-C, once a checkpoint is written.
        WorkerError: if another process has ended before its time.
    """
    source = harvest.select("fit")
    plan = Plan.of(
        [recipes] if isinstance(recipes, Recipe) else recipes,
        site=harvest.find(site),
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
    return dictionaries[0] if isinstance(recipes, Recipe) else dictionaries


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
    stream = source.stream(
        plan.site, batch_tokens=batch_tokens, generator=derived(plan.seeds[0], "order")
    )
    moments = source.moments(plan.site)
    whitening = Whitening.of(moments) if plan.options.normalisation == "whitening" else None
    scale = 1.0 if whitening else input_scale(moments)
    configuration = {
        "subject": source.subject_fingerprint,
        "activations": hash_tensors({"mean": moments.mean, "covariance": moments.covariance}),
        **plan.as_json(),
        "device": where.type,
    }
    found = _checkpoint_to_go_on_from(folder, configuration, processes, resume=resume)
    seen = whitening.moments(moments) if whitening else moments
    learners = learners_of(plan, seen, scale, where, processes)
    # Looked up before training, not after it: a threshold needs held-out tokens at its end.
    needs_heldout = any(
        isinstance(learner.dictionary.activation, BatchSparsifier) for learner in learners
    )
    find = heldout_tokens if needs_heldout else heldout_tokens_if_any
    heldout = find(harvest, plan.site)
    # One log of all processes' figures, which all of them have.
    to = log if processes.is_first else None
    logs = _sinks(to, keep_until=(found.step if found else 0) if resume else None)
    trainer = Trainer(
        learners,
        processes.stream(stream),
        scale=scale,
        schedule=plan.schedule,
        site=str(plan.site),
        device=where,
        checkpoints=CheckpointPlan(directory=folder, configuration=configuration)
        if folder
        else None,
        logs=logs,
        processes=processes,
        transform=whitening.transform(where) if whitening else None,
    )
    if found:
        trainer.load(found)
    try:
        trainer.run(progress if processes.is_first else SILENT)
    finally:
        for sink in logs:
            sink.close()

    dictionaries = [processes.dictionary(learner) for learner in learners]
    for learner, dictionary, one_seed in zip(learners, dictionaries, plan.seeds, strict=True):
        finish(dictionary, whitening or scale, heldout, unit_decoder=learner.training.unit_decoder)
        gap = None if heldout is None else sparsity_gap(dictionary, heldout, batch_tokens)
        if gap and processes.is_first:
            warn_of_gap(learner.name, gap)
        dictionary.subject_fingerprint = source.subject_fingerprint
        dictionary.provenance = Provenance.collect(
            seed=one_seed,
            device=str(where),
            subject=source.subject_name,
            subject_fingerprint=source.subject_fingerprint,
            corpus=source.origin,
            site=str(plan.site),
            tokens=plan.schedule.steps * batch_tokens,
            batch_tokens=batch_tokens,
            learning_rate=learner.learning_rate,
            **plan.options.facts() | {"precision": learner.precision},
            **(gap.facts() if gap else {}),
        )
    return dictionaries


def learners_of(
    plan: Plan,
    moments: Moments,
    scale: float,
    device: torch.device,
    processes: Processes = ONE_PROCESS,
) -> list[Learner]:
    """The plan's dictionaries at their start, ready to train on scaled activations."""
    data = DataScale(
        mean=(scale * moments.mean).to(device, torch.float32),
        total_variance=scale**2 * float(moments.covariance.trace()),
    )
    # Drawn on the CPU, so that a seed means the same start on every device.
    dictionaries = [
        recipe.build(
            d_in=len(data.mean),
            d_out=len(data.mean),
            data_mean=data.mean.cpu(),
            generator=derived(seed, "weights"),
            site=plan.site,
        ).to(device)
        for recipe, seed in zip(plan.recipes, plan.seeds, strict=True)
    ]
    rows = CHUNK_TOKENS if device.type == "cpu" else plan.batch_tokens
    widest = max(dictionary.width for dictionary in dictionaries)
    workspace = torch.empty(rows * widest, device=device)
    return [
        processes.learner(
            name=name,
            dictionary=dictionary,
            training=with_dead_latent_policy(training_of(recipe), plan.options),
            schedule=plan.schedule,
            learning_rate=rate,
            dead_window=window_tokens(plan.tokens),
            data=data,
            workspace=workspace,
            seed=seed,
            options=plan.options,
        )
        for name, dictionary, recipe, rate, seed in zip(
            _unique([dictionary.name for dictionary in dictionaries]),
            dictionaries,
            plan.recipes,
            plan.learning_rates,
            plan.seeds,
            strict=True,
        )
    ]


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a running number where one comes more than once."""
    return [
        f"{name} #{names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]


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
