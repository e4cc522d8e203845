"""A learner that has some of a dictionary's latents, and sees some of each batch's tokens."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.batch import BatchCodes
from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.distributed.collectives import sum_, sum_gradients, sum_values
from modelassay.fitting.distributed.dead_latents import SharedDeadLatents
from modelassay.fitting.distributed.mesh import ProcessMesh
from modelassay.fitting.distributed.objectives import across_processes
from modelassay.fitting.distributed.parts import latent_axis, part_of_dictionary, whole
from modelassay.fitting.distributed.sparsifiers import AcrossProcesses
from modelassay.fitting.learner import Learner
from modelassay.fitting.logs import Measurement
from modelassay.fitting.magnitudes import MagnitudeBias
from modelassay.fitting.norm_aware import NormAware
from modelassay.fitting.objectives.objective import Forward
from modelassay.fitting.options import USUAL, TrainingOptions
from modelassay.fitting.precision import encode_in_bfloat16
from modelassay.fitting.training import Training

_DIVISIBLE = {
    "objectives",
    "unit_decoder",
    "matches_start",
    "betas",
    "prefixes",
    "random_prefixes",
    "bandwidth",
    "window_stride",
    "threshold_rate",
}
"""What of a training is known to come out the same; what is added to it must be shown to."""
_DIVISIBLE_PARAMETRISATIONS = (None, NormAware, MagnitudeBias)
"""They make every latent of its own parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedCodes(BatchCodes):
    """Values of this process's latents; they reconstruct together with those of its row."""

    mesh: ProcessMesh

    def decode(self, W_dec: Float[Tensor, "width d_out"]) -> Float[Tensor, "token d_out"]:
        """The reconstruction by all latents without its bias."""
        return sum_values(BatchCodes.decode(self, W_dec), self.mesh.latents)

    def decode_nested(
        self, W_dec: Float[Tensor, "width d_out"], prefixes: Sequence[int]
    ) -> Float[Tensor, "prefix token d_out"]:
        """The reconstructions by the first latents of all, for every prefix."""
        return sum_values(BatchCodes.decode_nested(self, W_dec, prefixes), self.mesh.latents)


class SharedLearner(Learner):
    """Learns what one process with the whole batch and the whole dictionary would learn.

    Args:
        dictionary: the whole one; this process keeps a part of it.
        mesh: the processes.
        arguments: those of `Learner`.

    Raises:
        ValueRangeError: if the dictionary, a term of its loss or something else about its training
            cannot be divided.
    """

    def __init__(
        self,
        *,
        dictionary: Dictionary,
        training: Training,
        mesh: ProcessMesh,
        options: TrainingOptions = USUAL,
        **arguments: Any,
    ) -> None:
        _check_divisible(training)
        if options.optimizer == "muon" and mesh.latent_shards > 1:
            raise ValueRangeError(
                "Muon must see whole matrices; got latent_shards="
                f"{mesh.latent_shards}. Use latent_shards=1, or optimizer='adam'."
            )
        self._mesh = mesh
        self._width = dictionary.width
        self._sparsifier = type(dictionary.activation), dictionary.activation.settings()
        part = part_of_dictionary(dictionary, mesh)
        latents = SharedDeadLatents(
            part.width, arguments["dead_window"], mesh, dictionary.W_dec.device
        )
        objectives = tuple(across_processes(o, mesh, latents) for o in training.objectives)
        super().__init__(
            dictionary=part,
            training=replace(training, objectives=objectives),
            options=options,
            **arguments,
        )
        self.latents = latents
        self._together = AcrossProcesses(part.activation, mesh, self._width)

    @property
    def all_latents(self) -> int:
        """Number of the latents of all processes."""
        return self._width

    def encode(self, activations: Float[Tensor, "token d_in"], step: int) -> SharedCodes:
        """Codes of this process's tokens by its latents, as all together choose them."""
        batch = self.encoder_batch(activations, step)
        if batch.centre is not None:
            # Every process of the row subtracts it for its own latents alone.
            batch = replace(batch, centre=sum_gradients(batch.centre, self._mesh.latents))
        if self.precision == "bfloat16":
            codes = encode_in_bfloat16(self._together, batch)
        else:
            codes = self._together.encode(batch)
        parts = {field.name: getattr(codes, field.name) for field in fields(codes)}
        return SharedCodes(**parts, mesh=self._mesh)

    def prefixes(self, step: int) -> tuple[int, ...]:
        """How many of this process's latents each nested dictionary has: none, some or all."""
        mine = self._mesh.latents_of(self._width)
        return tuple(
            min(max(prefix - mine.start, 0), len(mine))
            for prefix in self.prefixes_of(self._width, step)
        )

    def _differentiate(self, loss: Float[Tensor, ""]) -> None:
        super()._differentiate(loss)
        for parameter in self.parameters.values():
            if parameter.grad is None:
                # Every process must take part in the sum.
                parameter.grad = torch.zeros_like(parameter)
            sum_(parameter.grad, self._mesh.tokens).div_(self._mesh.token_shards)

    def _over_tokens(self, number: Float[Tensor, ""]) -> Float[Tensor, ""]:
        return sum_(number, self._mesh.tokens)

    def _clip(self, parameters: Sequence[nn.Parameter], largest: float) -> None:
        """Shorten the gradient of all latents, as `clip_grad_norm_` does in one process."""
        here = {id(p) for n, p in self.parameters.items() if latent_axis(n, p.ndim) is not None}
        divided = [p.grad for p in parameters if p.grad is not None and id(p) in here]
        shared = [p.grad for p in parameters if p.grad is not None and id(p) not in here]
        device = self._mesh.device
        square = sum_(_sum_of_squares(divided, device), self._mesh.latents)
        norm = (square + _sum_of_squares(shared, device)).sqrt()
        factor = (largest / (norm + 1e-6)).clamp(max=1)
        for gradient in (*divided, *shared):
            gradient.mul_(factor)

    def measure(self, loss: Float[Tensor, ""], forward: Forward, step: int) -> Measurement:
        """The figures of the whole batch of a step; the same on every process."""
        error = forward.residual().detach().square().sum()
        spread = (forward.activations - self.data.mean).square().sum()
        of_tokens = torch.stack([loss.detach(), error, spread]).double()
        loss, error, spread = sum_(of_tokens, self._mesh.tokens).unbind()
        active = sum_((forward.values != 0).sum(), self._mesh.everyone)
        dead = sum_(self.latents.dead().sum(), self._mesh.latents)
        tokens = len(forward.activations) * self._mesh.token_shards
        return Measurement(
            dictionary=self.name,
            step=step + 1,
            tokens=(step + 1) * tokens,
            loss=float(loss) / self._mesh.token_shards,
            explained_variance=float(1 - error / spread),
            l0=float(active) / tokens,
            dead_share=float(dead) / self._width,
            learning_rate=self.learning_rate * self.schedule.learning_rate_factor(step),
        )

    def state(self) -> dict[str, Tensor]:
        """This process's part of everything that changes in training.

        Which latents are dead comes as one truth value a latent, which can be divided otherwise.
        """
        self.latents.agree()
        dead = torch.zeros(self.dictionary.width, dtype=torch.bool, device=self._mesh.device)
        dead[self.dead] = True
        return super().state() | {"dead": dead}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from this process's part of a state, or from one that one process saved."""
        dead = tensors["dead"]
        if dead.dtype == torch.bool:
            here = dead.nonzero().squeeze(1)
        else:
            mine = self._mesh.latents_of(self._width)
            here = dead[(dead >= mine.start) & (dead < mine.stop)] - mine.start
        super().load_state(tensors | {"dead": here})
        self.latents.count(self.dead)

    def whole(self) -> Dictionary:
        """The dictionary that all processes have learned, put together on each of them."""
        part = self.dictionary
        tensors = {
            name: whole(tensor, latent_axis(name, tensor.ndim), self._mesh, self._width)
            for name, tensor in part.state_dict().items()
        }
        sparsifier, settings = self._sparsifier
        own = {
            name.removeprefix("activation."): tensor
            for name, tensor in tensors.items()
            if name.startswith("activation.")
        }
        return Dictionary(
            W_enc=tensors["W_enc"],
            b_enc=tensors["b_enc"],
            W_dec=tensors["W_dec"],
            b_dec=tensors["b_dec"],
            activation=sparsifier.read(settings, own).to(self._mesh.device),
            reads=part.reads,
            writes=part.writes,
            apply_b_dec_to_input=part.apply_b_dec_to_input,
            frozen_decoder=part.frozen_decoder,
            recipe=part.recipe,
            name=part.name,
            references=part.references,
        )


def _check_divisible(training: Training) -> None:
    """Refuse what many processes would do otherwise than one."""
    for field in fields(training):
        value = getattr(training, field.name)
        if field.name in _DIVISIBLE or value == field.default:
            continue
        if field.name == "parametrisation" and value in _DIVISIBLE_PARAMETRISATIONS:
            continue
        raise ValueRangeError(
            f"A training of many processes must leave {field.name} as it is by default; got "
            f"{value!r}. Fit in one process."
        )


def _sum_of_squares(gradients: Iterable[Tensor], device: torch.device) -> Float[Tensor, ""]:
    total = torch.zeros((), device=device)
    for gradient in gradients:
        total += torch.linalg.vector_norm(gradient).square()
    return total
