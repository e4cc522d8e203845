"""One temporal dictionary while it is trained."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from modelassay.decompositions.batch import BatchCodes
from modelassay.decompositions.temporal import TemporalDictionary
from modelassay.fitting.dead_latents import DeadLatents
from modelassay.fitting.logs import Measurement
from modelassay.fitting.optimizers import load_moments, make_optimizer, moments_of
from modelassay.fitting.schedules import Schedule

_LARGEST_GRADIENT_NORM = 1.0
_BETAS = (0.9, 0.999)  # appendix B.1's "standard hyperparameters"


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalForward:
    """What a step made of its batch, in scaled units."""

    loss: Float[Tensor, ""]
    """Mean squared error of a token over the data's variance."""
    spread: Float[Tensor, ""]
    """Mean squared distance of the batch's tokens from the data's mean, likewise."""
    novel: BatchCodes
    """Of the tokens that are there, and of padding."""
    mask: Bool[Tensor, " token"]
    """Which are there."""

    def values(self) -> Float[Tensor, "token slot"]:
        """The novel codes; 0 where there is no token."""
        return self.novel.values.detach() * self.mask.unsqueeze(1)


class TemporalLearner:
    """Minimises ``mean |x - x̂|² / V`` over the tokens of whole contexts, by Adam.

    Args:
        dictionary: trained in place.
        schedule: of the run.
        learning_rate: at the plateau.
        dead_window: tokens of silence after which a latent counts as dead: one that no token has
            as novel.
        mean: of scaled activations.
        total_variance: V, of scaled activations.
    """

    def __init__(
        self,
        dictionary: TemporalDictionary,
        *,
        schedule: Schedule,
        learning_rate: float,
        dead_window: int,
        mean: Float[Tensor, " d"],
        total_variance: float,
    ) -> None:
        self.dictionary = dictionary
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.mean, self.total_variance = mean, total_variance
        self.tokens = 0
        self.latents = DeadLatents(dictionary.width, dead_window, mean.device)
        self.parameters = dict(dictionary.named_parameters())
        self.optimizer = make_optimizer(
            "adam",
            [{"params": list(self.parameters.values())}],
            learning_rate=learning_rate,
            betas=_BETAS,
        )

    def step(
        self,
        scaled: Float[Tensor, "context token d"],
        mask: Bool[Tensor, "context token"],
        step: int,
    ) -> TemporalForward:
        """Learn from one batch.

        Args:
            scaled: scaled activations, 0 where there is no token.
            mask: which tokens are there.
            step: of the run, counted from 0.

        Returns:
            The forward pass, from before the update.
        """
        rate = self.learning_rate * self.schedule.learning_rate_factor(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        forward = self.forward(scaled, mask)
        self.optimizer.zero_grad()
        forward.loss.backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), _LARGEST_GRADIENT_NORM)
        self.optimizer.step()
        n_tokens = int(mask.sum())
        self.latents.record(forward.values(), forward.novel.indices, tokens=n_tokens)
        self.tokens += n_tokens
        return forward

    def forward(
        self, scaled: Float[Tensor, "context token d"], mask: Bool[Tensor, "context token"]
    ) -> TemporalForward:
        """Codes and error of a batch."""
        dictionary = self.dictionary
        split = dictionary.split(scaled)
        novel = dictionary.activation.encode(split.novel)
        # What the prediction left is in front of the encoder, but for the encoder's factor.
        left = split.novel.x * (4 * dictionary.d_in)
        errors = (left - novel.decode(dictionary.W_dec)).square().sum(1)
        there = mask.flatten()
        unit = there.sum() * self.total_variance
        spread = (scaled.flatten(0, 1) - self.mean).square().sum(1)
        return TemporalForward(
            loss=(errors * there).sum() / unit,
            spread=(spread * there).sum() / unit,
            novel=novel,
            mask=there,
        )

    def measure(self, name: str, forward: TemporalForward, step: int) -> Measurement:
        """The figures of the batch of a step; L0 is that of the novel codes."""
        return Measurement(
            dictionary=name,
            step=step + 1,
            tokens=self.tokens,
            loss=float(forward.loss.detach()),
            explained_variance=float(1 - forward.loss.detach() / forward.spread),
            l0=float((forward.values() != 0).sum() / forward.mask.sum()),
            dead_share=float(self.latents.dead().float().mean()),
            learning_rate=self.learning_rate * self.schedule.learning_rate_factor(step),
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that changes in training, as named tensors."""
        tensors = {"silence": self.latents.silence, "tokens": torch.tensor(self.tokens)}
        for name, parameter in self.parameters.items():
            tensors[name] = parameter.detach().contiguous()
            tensors |= moments_of(self.optimizer, name, parameter)
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from where the learner stood whose `state` this was."""
        self.latents.silence = tensors["silence"]
        self.tokens = int(tensors["tokens"])
        for name, parameter in self.parameters.items():
            parameter.data.copy_(tensors[name])
        load_moments(self.optimizer, self.parameters, tensors)
