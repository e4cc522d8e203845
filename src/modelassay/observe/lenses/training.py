"""Training a tuned lens: every depth learns to predict what the model predicts at its end."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import NonFiniteError, TooFewTokensError, ValueRangeError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.fitting.checkpoints import (
    Checkpoint,
    has_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from modelassay.observe.lenses.streams import read_streams
from modelassay.observe.lenses.tuned import TunedLens
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedLensRecipe:
    """How a tuned lens is trained; the defaults are those of the paper's release.

    Reference: Belrose et al. 2023, appendix; tuned-lens 0.2.0, `scripts/train_loop.py`.
    """

    steps: int = 250
    tokens_per_step: int = 2**18
    """Small models of small vocabularies do with far fewer."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with Nesterov momentum, or Adam with amsgrad."""
    learning_rate: float | None = None
    """None for the release's: 1.0 times (1 - momentum) with SGD, 1e-3 with Adam. It falls linearly
    to 0 over the steps, without warm-up."""
    momentum: float = 0.9
    """Adam's first coefficient, too."""
    weight_decay: float = 1e-3
    """Towards the identity, because the map is added to it."""
    clip: float = 1.0
    """Largest norm of the gradient over all depths together."""
    loss: Literal["kl", "cross_entropy"] = "kl"
    """Against the model's prediction at the same token, or against the next token."""

    def __post_init__(self) -> None:
        for name in ("steps", "tokens_per_step"):
            if getattr(self, name) < 1:
                raise ValueRangeError(
                    f"{name} must be at least 1; got {getattr(self, name)}. Raise it."
                )
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueRangeError(f"{name} must be above 0; got {value}. Raise it.")
        if not 0 <= self.momentum < 1 or self.weight_decay < 0:
            raise ValueRangeError(
                "momentum must be from 0 to below 1 and weight_decay at least 0; got "
                f"{self.momentum} and {self.weight_decay}. Use 0.9 and 1e-3."
            )


def train_tuned_lens(
    subject: Subject,
    contexts: TokenizedCorpus,
    *,
    recipe: TunedLensRecipe | None = None,
    seed: int = 0,
    batch_contexts: int = 8,
    checkpoint: str | Path | None = None,
    checkpoint_steps: int = 25,
    progress: Progress = SILENT,
) -> TunedLens:
    """Train a tuned lens on the contexts of fitting documents.

    The mean over tokens of ``KL(final || lens)`` is followed downhill for every depth but the
    last, from the logit lens. The norm and the unembedding are the model's and stay as they are.
    The depths are taken one after another, so that one table of logits is held at a time.

    Args:
        subject: a verified language model.
        contexts: of documents that nothing is measured on afterwards.
        recipe: how to train; None for the release's.
        seed: of the order of the contexts.
        batch_contexts: contexts that the model reads at a time.
        checkpoint: folder of a checkpoint, from which a stopped run goes on bit for bit.
        checkpoint_steps: steps between checkpoints.
        progress: where to report.

    Raises:
        TooFewTokensError: no context.
        NonFiniteError: the loss is NaN or infinite.
        ProvenanceError: the checkpoint was made by another run.
        UnsupportedModelError: the subject is no verified language model.
    """
    recipe = recipe or TunedLensRecipe()
    if not bool(contexts.measured.any()):
        raise TooFewTokensError(
            f"A lens is trained on measured tokens; got none in {len(contexts)} contexts. Add text."
        )
    provenance = Provenance.collect(
        seed=seed,
        device=str(subject.device),
        subject=subject.name,
        subject_fingerprint=subject.fingerprint(),
        corpus=contexts.corpus.source,
        corpus_fingerprint=contexts.fingerprint(),
        **asdict(recipe),
    )
    lens = TunedLens.untrained(subject, provenance=provenance)
    run = _Run(subject=subject, contexts=contexts, recipe=recipe, seed=seed, lens=lens)
    folder = None if checkpoint is None else Path(checkpoint)
    if folder is not None and has_checkpoint(folder):
        run.restore(read_checkpoint(folder, run.configuration()))
    with progress.task("Training the lens", total=recipe.steps, unit="steps") as task:
        task.advance(run.step)
        while run.step < recipe.steps:
            loss = run.advance(batch_contexts)
            if not math.isfinite(loss):
                raise NonFiniteError(
                    f"A lens's loss must be finite; got {loss} in step {run.step}. "
                    "Lower the learning rate, or load the model in float32."
                )
            task.advance(1, loss=loss)
            last = run.step == recipe.steps
            if folder is not None and (last or run.step % checkpoint_steps == 0):
                write_checkpoint(folder, run.state())
    return TunedLens(weight=lens.weight.detach(), bias=lens.bias.detach(), header=lens.header)


class _Run:
    """The state of one training run."""

    def __init__(
        self,
        *,
        subject: Subject,
        contexts: TokenizedCorpus,
        recipe: TunedLensRecipe,
        seed: int,
        lens: TunedLens,
    ) -> None:
        self.subject, self.contexts, self.recipe, self.seed = subject, contexts, recipe, seed
        self.lens = lens
        self.parameters = [lens.weight.requires_grad_(), lens.bias.requires_grad_()]
        self.optimizer = _optimizer(self.parameters, recipe)
        self.step = 0

    def advance(self, batch_contexts: int) -> float:
        """One step; its loss, the mean over depths."""
        chosen = self._contexts_of_step()
        gradients = [torch.zeros_like(p) for p in self.parameters]
        n_tokens = int(self.contexts.measured[chosen].sum())
        loss = 0.0
        for rows in chosen.split(batch_contexts):
            loss += self._accumulate(self.contexts[rows], gradients, n_tokens)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(self.recipe) * (1 - self.step / self.recipe.steps)
        self.optimizer.step()
        self.step += 1
        return loss / self.lens.n_layers

    def _contexts_of_step(self) -> Tensor:
        """The next contexts of an endless row of shuffled epochs: a function of the step alone."""
        n, length = len(self.contexts), float(self.contexts.measured.sum(1).float().mean())
        count = max(1, round(self.recipe.tokens_per_step / length))
        numbers = torch.arange(self.step * count, (self.step + 1) * count)
        chosen = torch.empty_like(numbers)
        for epoch in (numbers // n).unique().tolist():
            order = torch.randperm(n, generator=derived(self.seed, "lens contexts", epoch))
            here = numbers // n == epoch
            chosen[here] = order[numbers[here] % n]
        return chosen

    def _accumulate(self, batch: TokenizedCorpus, gradients: list[Tensor], n_tokens: int) -> float:
        mask = None if bool(batch.mask.all()) else batch.mask
        streams = read_streams(self.subject, batch.tokens, mask)
        usable, teach = _teacher(self.recipe, batch, streams.logits)
        loss = 0.0
        for depth in range(self.lens.n_layers):
            with torch.enable_grad():
                translated = self.lens.translate(streams.resid[depth][usable], depth)
                part = teach(self.subject.logits_of(translated)) / n_tokens
            # By name and not by backward(): a caller's model may want gradients of its own.
            found = torch.autograd.grad(part, self.parameters)
            for gradient, new in zip(gradients, found, strict=True):
                gradient += new
            loss += float(part.detach())
        return loss

    def state(self) -> Checkpoint:
        """Everything that the next step depends on."""
        tensors = {"weight": self.parameters[0], "bias": self.parameters[1]}
        for index, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{name}"] = value
        return Checkpoint(
            configuration=self.configuration(), step=self.step, tensors=tensors, state={}
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from `state`."""
        with torch.no_grad():
            self.parameters[0].copy_(checkpoint.tensors["weight"])
            self.parameters[1].copy_(checkpoint.tensors["bias"])
        for name, value in checkpoint.tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".")
                parameter = self.parameters[int(index)]
                on_cpu = key == "step"  # where Adam keeps its count
                kept = value if on_cpu else value.to(parameter.device)
                self.optimizer.state[parameter][key] = kept
        self.step = checkpoint.step

    def configuration(self) -> dict[str, str | int | float | None]:
        """What the run was asked to do."""
        return {
            **asdict(self.recipe),
            "seed": self.seed,
            "subject": self.subject.fingerprint(),
            "contexts": self.contexts.fingerprint(),
        }


def _rate(recipe: TunedLensRecipe) -> float:
    if recipe.learning_rate is not None:
        return recipe.learning_rate
    return 1.0 * (1 - recipe.momentum) if recipe.optimizer == "sgd" else 1e-3


def _optimizer(parameters: list[Tensor], recipe: TunedLensRecipe) -> torch.optim.Optimizer:
    rate = _rate(recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
    return torch.optim.Adam(
        parameters,
        lr=rate,
        betas=(recipe.momentum, 0.999),
        amsgrad=True,
        weight_decay=recipe.weight_decay,
    )


Teacher = Callable[[Float[Tensor, "token vocab"]], Float[Tensor, ""]]


def _teacher(
    recipe: TunedLensRecipe, batch: TokenizedCorpus, logits: Float[Tensor, "batch token vocab"]
) -> tuple[Tensor, Teacher]:
    """Which tokens teach, and the sum of their losses."""
    usable = batch.measured.clone()
    if recipe.loss == "cross_entropy":
        usable[:, :-1] &= batch.mask[:, 1:]
        usable[:, -1] = False
        targets = batch.tokens.roll(-1, 1)[usable].to(logits.device)
        return usable.to(logits.device), lambda lens: torch.nn.functional.cross_entropy(
            lens.float(), targets, reduction="sum"
        )
    usable = usable.to(logits.device)
    final = logits[usable].float().log_softmax(-1)
    return usable, lambda lens: torch.nn.functional.kl_div(
        lens.float().log_softmax(-1), final, reduction="sum", log_target=True
    )
