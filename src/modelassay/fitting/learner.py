"""One dictionary while it is trained: its weights, optimiser and dead latents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.dead_latents import DeadLatents
from modelassay.fitting.logs import Measurement
from modelassay.fitting.objectives.objective import Forward, StatefulObjective
from modelassay.fitting.optimizers import load_moments, make_optimizer, moments_of
from modelassay.fitting.options import USUAL, TrainingOptions
from modelassay.fitting.parametrisation import FromActivations, Parametrisation
from modelassay.fitting.precision import encode_in_bfloat16, resolve_precision
from modelassay.fitting.random_prefixes import draw_prefixes
from modelassay.fitting.resampling import check_restartable, restart
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import Training

_LARGEST_GRADIENT_NORM = 1.0  # SAELens' and dictionary_learning's common choice
_SPARSIFIER = "activation."  # names of the sparsifier's own parameters begin so


@dataclass(frozen=True, kw_only=True, slots=True)
class DataScale:
    """What training must know of all activations, in the scaled units that it works in."""

    mean: Float[Tensor, " d_in"]
    total_variance: float
    """Mean squared distance from the mean."""
    draw: Callable[[int], Float[Tensor, "token d_in"]] | None = None
    """Some of them at random, as many as asked for if there are; None where they are unknown."""


class Learner:
    """Trains one dictionary by one optimiser step per batch.

    No method but `census` and `measure` waits for the device.

    Args:
        name: unique within a run.
        dictionary: trained in place.
        training: loss and optimiser.
        schedule: of the run.
        learning_rate: at the plateau.
        dead_window: tokens of silence after which a latent is dead.
        data: mean and variance of the activations that it will see.
        workspace: memory for pre-activations, shared by learners that take turns.
        seed: of what is drawn in training.
        options: optimiser and precision; the rest of them is in the schedule and the training.
    """

    def __init__(
        self,
        *,
        name: str,
        dictionary: Dictionary,
        training: Training,
        schedule: Schedule,
        learning_rate: float,
        dead_window: int,
        data: DataScale,
        workspace: Float[Tensor, " number"],
        seed: int = 0,
        options: TrainingOptions = USUAL,
    ) -> None:
        self.name = name
        self.dictionary = dictionary
        self.training = training
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.data = data
        self._seed = seed
        self._resampled_after = 0  # steps
        rows = len(workspace) // dictionary.width
        self._buffer = workspace[: rows * dictionary.width].view(rows, dictionary.width)
        self._parametrisation = self._parametrised()
        self._made = self._make()
        self.parameters = self._trained()
        if training.resampling:
            check_restartable(self.parameters)
        self._unit_decoder = training.unit_decoder and "W_dec" in self.parameters
        # Training happens at a mean norm of sqrt(d).
        self._bandwidth = training.bandwidth * math.sqrt(dictionary.d_in)
        self.optimizer = make_optimizer(
            options.optimizer,
            self._groups(),
            learning_rate=learning_rate,
            betas=training.betas,
        )
        device = dictionary.W_dec.device
        self.precision = resolve_precision(options.precision, device)
        schedule.check_k(dictionary.activation, dictionary.width)
        self.latents = DeadLatents(dictionary.width, dead_window, device)
        self.dead: Int[Tensor, " dead"] = torch.zeros(0, dtype=torch.int64, device=device)

    def _parametrised(self) -> Parametrisation | None:
        """What makes some of the dictionary's parameters, if anything does."""
        make = self.training.parametrisation
        if not isinstance(make, FromActivations):
            return make and make(self.dictionary)
        if self.data.draw is None:
            raise ValueRangeError(
                f"{self.name} must be made of activations; got only their moments. "
                "Pass what draws them, or fit another recipe."
            )
        sample = self.data.draw(make.tokens)
        return make.make(self.dictionary, sample, derived(self._seed, "parametrisation"))

    def _constants(self) -> dict[str, Tensor]:
        """What the parametrisation does not change."""
        if self._parametrisation is None:
            return {}
        return dict(self._parametrisation.named_buffers("parametrisation"))

    def _trained(self) -> dict[str, nn.Parameter]:
        """What the optimiser moves: the dictionary's parameters, or what they are made of."""
        own = {
            name: parameter
            for name, parameter in self.dictionary.named_parameters()
            if parameter.requires_grad and name not in self._made
        }
        if self._parametrisation is None:
            return own
        return own | dict(self._parametrisation.named_parameters("parametrisation"))

    def _make(self) -> dict[str, Tensor]:
        """Write the parameters that are made of others into the dictionary."""
        made = {} if self._parametrisation is None else self._parametrisation()
        for name, value in made.items():
            self.dictionary.get_parameter(name).data.copy_(value.detach())
        return made

    def _groups(self) -> list[dict[str, Any]]:
        """The weights, and apart from them thresholds, whose gradients are of another size."""
        own = [p for n, p in self.parameters.items() if n.startswith(_SPARSIFIER)]
        weights = [p for n, p in self.parameters.items() if not n.startswith(_SPARSIFIER)]
        groups: list[dict[str, Any]] = [{"params": weights, "rate": 1.0}]
        if own:
            groups.append({"params": own, "rate": self.training.threshold_rate})
        return groups

    def step(
        self, activations: Float[Tensor, "token d_in"], step: int
    ) -> tuple[Float[Tensor, ""], Forward]:
        """Learn from one batch.

        Args:
            activations: scaled activations.
            step: of the run, counted from 0; sets the learning rate and the penalty.

        Returns:
            The loss and the forward pass, both from before the update.
        """
        rate = self.learning_rate * self.schedule.learning_rate_factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        forward = self.forward(activations, step)
        loss = torch.stack([objective(forward) for objective in self.training.objectives]).sum()
        self._differentiate(loss)
        self._constrain_gradients()
        self.optimizer.step()
        self._project()
        self.latents.record(forward.values.detach(), forward.indices, tokens=len(activations))
        return loss.detach(), forward

    def _differentiate(self, loss: Float[Tensor, ""]) -> None:
        """Gradients of all trained parameters."""
        self.dictionary.zero_grad()
        self.optimizer.zero_grad()
        loss.backward()
        if self._made:
            gradients = [self.dictionary.get_parameter(name).grad for name in self._made]
            torch.autograd.backward(list(self._made.values()), gradients)

    def _constrain_gradients(self) -> None:
        """Leave out of the gradients what must not be followed, or not so far."""
        if self._unit_decoder:
            _remove_parallel_part(self.dictionary.W_dec)
        for group in self.optimizer.param_groups:
            self._clip(group["params"], _LARGEST_GRADIENT_NORM)

    def _clip(self, parameters: Sequence[nn.Parameter], largest: float) -> None:
        """Shorten the gradient of some parameters to a norm of at most `largest`."""
        nn.utils.clip_grad_norm_(parameters, largest)

    def _project(self) -> None:
        """Bring the parameters back to where they may be."""
        if self._unit_decoder:
            _normalise_rows(self.dictionary.W_dec)
        self.dictionary.activation.project()
        if self._parametrisation is not None:
            self._parametrisation.project()
            self._made = self._make()

    def encode(self, activations: Float[Tensor, "token d_in"], step: int) -> BatchCodes:
        """Codes of a batch in training."""
        batch = self.encoder_batch(activations, step)
        if self.precision == "bfloat16":
            return encode_in_bfloat16(self.dictionary.activation, batch)
        return self.dictionary.activation.encode(batch)

    def encoder_batch(self, activations: Float[Tensor, "token d_in"], step: int) -> EncoderBatch:
        """What the sparsifier of this learner sees of a batch."""
        dictionary = self.dictionary
        return EncoderBatch(
            x=activations,
            W_enc=dictionary.W_enc,
            b_enc=dictionary.b_enc,
            centre=dictionary.b_dec if dictionary.apply_b_dec_to_input else None,
            buffer=self._buffer,
            bandwidth=self._bandwidth,
            W_dec=dictionary.W_dec,
            k=self.schedule.k_of(dictionary.activation, step),
        )

    def prefixes(self, step: int) -> tuple[int, ...]:
        """Sizes of the nested dictionaries in a step; none where there is but one."""
        return self.prefixes_of(self.dictionary.width, step)

    def prefixes_of(self, width: int, step: int) -> tuple[int, ...]:
        """Those of a dictionary of which this one may be a part."""
        number = self.training.random_prefixes
        if not number:
            return self.training.prefixes
        return draw_prefixes(width, number, derived(self._seed, "prefixes", step))

    def forward(self, activations: Float[Tensor, "token d_in"], step: int) -> Forward:
        """Codes and reconstruction of a batch, with what the objectives need besides."""
        dictionary = self.dictionary
        codes = self.encode(activations, step)
        nested, prefixes = None, self.prefixes(step)
        if prefixes:
            nested = codes.decode_nested(dictionary.W_dec, prefixes) + dictionary.b_dec
            reconstruction = nested[-1]
        else:
            reconstruction = codes.decode(dictionary.W_dec) + dictionary.b_dec
        return Forward(
            dictionary=dictionary,
            activations=activations,
            codes=codes,
            reconstruction=reconstruction,
            total_variance=self.data.total_variance,
            dead=self.dead,
            sparsity_factor=self.schedule.sparsity_factor(step),
            progress=step / self.schedule.steps,
            nested=nested,
            prefixes=prefixes,
        )

    def census(self) -> None:
        """Look up which latents are dead now; AuxK works on these until the next census."""
        self.dead = self.latents.census()

    def resample(self, forward: Forward, steps_done: int) -> Int[Tensor, " restarted"]:
        """Let dead latents begin anew, if that is this training's policy and it is time.

        Args:
            forward: a recent batch, whose inputs they begin at.
            steps_done: of the run.

        Returns:
            Which latents begin anew.
        """
        policy = self.training.resampling
        if policy is None or not policy.is_due(steps_done, self._resampled_after, self.schedule):
            return self.dead[:0]
        # Half the interval since the last time: whoever began anew then had that long to fire.
        window = policy.interval(self.schedule) * len(forward.activations) // 2
        silent = self.latents.silence >= window
        restarted = restart(
            silent.nonzero().squeeze(1),
            living=~silent,
            dictionary=self.dictionary,
            parameters=self.parameters,
            optimizer=self.optimizer,
            inputs=forward.activations,
            errors=forward.residual().detach().square().sum(1),
            gain=policy.gain,
            generator=derived(self._seed, "resampling", steps_done),
        )
        # What was made of the weights was made of those before.
        self._made = self._make()
        if self._parametrisation is not None:
            self._made = self._make()
        self.latents.silence[restarted] = 0
        self.dead = self.latents.census()
        self._resampled_after = steps_done
        return restarted

    def measure(self, loss: Float[Tensor, ""], forward: Forward, step: int) -> Measurement:
        """The figures of the batch of a step."""
        tokens = len(forward.activations)
        error = forward.residual().detach().square().sum()
        spread = (forward.activations - self.data.mean).square().sum()
        return Measurement(
            dictionary=self.name,
            step=step + 1,
            tokens=(step + 1) * tokens,
            loss=float(loss),
            explained_variance=float(1 - error / spread),
            l0=float((forward.values != 0).sum() / tokens),
            dead_share=float(self.latents.dead().float().mean()),
            learning_rate=self.learning_rate * self.schedule.learning_rate_factor(step),
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that changes in training, as named tensors."""
        tensors = {"silence": self.latents.silence, "dead": self.dead, **self._constants()}
        if self.training.resampling:
            tensors["resampled_after"] = torch.tensor(self._resampled_after)
        for name, parameter in self.parameters.items():
            tensors[name] = parameter.detach()
            tensors |= moments_of(self.optimizer, name, parameter)
        for prefix, objective in self._stateful():
            tensors |= {f"{prefix}{name}": value for name, value in objective.state().items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from where the learner stood whose `state` this was."""
        self.latents.silence = tensors["silence"]
        self.dead = tensors["dead"].to(self.dead.device)
        if self.training.resampling:
            self._resampled_after = int(tensors["resampled_after"])
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[name])
        for name, constant in self._constants().items():
            constant.copy_(tensors[name])
        load_moments(self.optimizer, self.parameters, tensors)
        for prefix, objective in self._stateful():
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            objective.load_state(own)
        self._made = self._make()

    def _stateful(self) -> list[tuple[str, StatefulObjective]]:
        """The terms that change with what they have seen, with the beginning of their names."""
        return [
            (f"objective.{place}.", objective)
            for place, objective in enumerate(self.training.objectives)
            if isinstance(objective, StatefulObjective)
        ]


def _remove_parallel_part(rows: Tensor) -> None:
    """Take out of each row's gradient what would only change the row's length."""
    if rows.grad is not None:
        # A batch of products of one row and one column: `vecdot` would make a matrix on the way.
        along = rows.grad.unsqueeze(1) @ rows.detach().unsqueeze(2)
        rows.grad.addcmul_(rows.detach(), along.squeeze(2), value=-1)


@torch.no_grad()
def _normalise_rows(rows: Tensor) -> None:
    rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))
