"""One dictionary while it is trained: its weights, optimiser and dead latents."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.dead_latents import DeadLatents
from modelassay.fitting.logs import Measurement
from modelassay.fitting.objectives.objective import Forward, StatefulObjective
from modelassay.fitting.optimizers import load_moments, make_optimizer, moments_of
from modelassay.fitting.options import USUAL, TrainingOptions
from modelassay.fitting.precision import encode_in_bfloat16, resolve_precision
from modelassay.fitting.random_prefixes import draw_prefixes
from modelassay.fitting.resampling import check_restartable, restart
from modelassay.fitting.schedules import Schedule
from modelassay.fitting.training import Training
from modelassay.fitting.weights import DataScale, TrainedWeights

_LARGEST_GRADIENT_NORM = 1.0  # SAELens' and dictionary_learning's common choice


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
        self.weights = TrainedWeights(dictionary, training, data, name=name, seed=seed)
        if training.resampling:
            check_restartable(self.parameters)
        # Training happens at a mean norm of sqrt(d).
        self.optimizer = make_optimizer(
            options.optimizer,
            self.weights.groups(),
            learning_rate=learning_rate,
            betas=training.betas,
        )
        device = dictionary.W_dec.device
        self.precision = resolve_precision(options.precision, device)
        schedule.check_k(dictionary.activation, self.all_latents)
        self.latents = DeadLatents(dictionary.width, dead_window, device)
        self.dead: Int[Tensor, " dead"] = torch.zeros(0, dtype=torch.int64, device=device)

    @property
    def all_latents(self) -> int:
        """Number of the dictionary's latents, wherever they are."""
        return self.dictionary.width

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What the optimiser moves."""
        return self.weights.parameters

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
        if step == 0 and self.training.matches_start:
            self._match_start(activations)
        forward = self.forward(activations, step)
        loss = torch.stack([objective(forward) for objective in self.training.objectives]).sum()
        self._differentiate(loss)
        self.weights.constrain_gradients()
        for group in self.optimizer.param_groups:
            self._clip(group["params"], _LARGEST_GRADIENT_NORM)
        self.optimizer.step()
        self.weights.project()
        self.latents.record(forward.values.detach(), forward.indices, tokens=len(activations))
        return loss.detach(), forward

    @torch.no_grad()
    def _match_start(self, activations: Float[Tensor, "token d_in"]) -> None:
        """Scale the encoder so that the first reconstructions err least: see `Training`."""
        centred = activations - self.dictionary.b_dec
        decoded = self.encode(activations, 0).decode(self.dictionary.W_dec)
        alike = self._over_tokens((decoded * centred).sum())
        square = self._over_tokens(decoded.square().sum())
        self.weights.scale_encoder(torch.where(alike > 0, alike / square, 1.0))

    def _over_tokens(self, number: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """A sum over the whole batch from the one over these tokens."""
        return number

    def _differentiate(self, loss: Float[Tensor, ""]) -> None:
        """Gradients of all trained parameters."""
        self.dictionary.zero_grad()
        self.optimizer.zero_grad()
        loss.backward()
        self.weights.pass_gradients_on()

    def _clip(self, parameters: Sequence[nn.Parameter], largest: float) -> None:
        """Shorten the gradient of some parameters to a norm of at most `largest`."""
        nn.utils.clip_grad_norm_(parameters, largest)

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
            bandwidth=self.training.bandwidth,
            window_stride=self.training.window_stride,
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
        self.weights.make()
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
        tensors = {"silence": self.latents.silence, "dead": self.dead, **self.weights.constants()}
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
        for name, constant in self.weights.constants().items():
            constant.copy_(tensors[name])
        load_moments(self.optimizer, self.parameters, tensors)
        for prefix, objective in self._stateful():
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            objective.load_state(own)
        self.weights.make()

    def _stateful(self) -> list[tuple[str, StatefulObjective]]:
        """The terms that change with what they have seen, with the beginning of their names."""
        return [
            (f"objective.{place}.", objective)
            for place, objective in enumerate(self.training.objectives)
            if isinstance(objective, StatefulObjective)
        ]
