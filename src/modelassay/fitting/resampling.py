"""Resampling: dead latents begin anew at inputs that are badly reconstructed."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.fitting.schedules import Schedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampling:
    """When dead latents begin anew, and how large their encoder's columns then are.

    Every interval, at a census, latents that were silent for more than half of it get a new
    start (see `restart`); never while the learning rate falls, which would leave them no time to
    learn.

    Reference:
        Bricken et al. 2023, "Towards monosemanticity", appendix "Neuron resampling"; half the
        interval as in dictionary_learning.
    """

    interval_share: float = 0.1
    """Steps from one resampling to the next, as a share of the run's (ours; four times in the
    first 100,000 of 200,000 steps in the reference). Short intervals take latents that are only
    rare for dead."""
    gain: float = 0.05
    """Norm of a new encoder column, as a multiple of the living ones' mean (ours; 0.2 in the
    reference, with which a short run explains less and leaves more dead: the new latents'
    sudden values disturb the living ones)."""

    def __post_init__(self) -> None:
        if not 0 < self.interval_share < 1:
            raise ValueRangeError(
                "interval_share must be above 0 and below 1; got "
                f"{self.interval_share}. Use 0.1 to resample at every tenth of the run."
            )
        if not self.gain > 0:
            raise ValueRangeError(
                f"gain must be above 0; got {self.gain}. Use 0.05 for latents that start small."
            )

    def interval(self, schedule: Schedule) -> int:
        """Steps from one resampling to the next."""
        return max(1, round(self.interval_share * schedule.steps))

    def is_due(self, steps_done: int, last: int, schedule: Schedule) -> bool:
        """Whether to resample now.

        Args:
            steps_done: of the run.
            last: `steps_done` at the last resampling, 0 if there was none.
            schedule: of the run.
        """
        falling = steps_done >= (1 - schedule.decay_share) * schedule.steps
        return not falling and steps_done - last >= self.interval(schedule)


@torch.no_grad()
def restart(
    latents: Int[Tensor, " dead"],
    *,
    living: Bool[Tensor, " latent"],
    dictionary: Dictionary,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    inputs: Float[Tensor, "token d_in"],
    errors: Float[Tensor, " token"],
    gain: float,
    generator: torch.Generator,
) -> Int[Tensor, " restarted"]:
    """Begin latents anew, each at one input, drawn in proportion to its error.

    With u the unit vector of the drawn input (minus `b_dec`, if the encoder subtracts it), the
    means taken over living latents: `W_enc[:, i] = gain * mean |w| u`, `W_dec[i] = mean |d| u`,
    `b_enc[i] = 0`. A decoder that is not trained keeps its rows, and u is then the row's
    direction. Other single numbers of a latent, such as its threshold, become the living ones'
    mean.
    The optimiser's memory of the latent is zero.

    Args:
        latents: to begin anew; those beyond the number of inputs with an error are left alone.
        living: which latents the means are over.
        dictionary: changed in place.
        parameters: what the optimiser moves, by name.
        optimizer: of the parameters.
        inputs: of one batch.
        errors: squared error of every input's reconstruction.
        gain: of the encoder.
        generator: on the CPU; draws the inputs.

    Returns:
        The latents that begin anew.
    """
    n_restarted = min(len(latents), int((errors > 0).sum()))
    if not n_restarted or not bool(living.any()):
        return latents[:0]
    chosen = torch.multinomial(errors.double().cpu(), n_restarted, generator=generator)
    latents = latents[:n_restarted]
    start = inputs[chosen.to(inputs.device)]
    if dictionary.apply_b_dec_to_input:
        start = start - dictionary.b_dec
    rows = dictionary.W_dec
    trains_decoder = "W_dec" in parameters and inputs.shape[1] == rows.shape[1]
    unit = nn.functional.normalize(start if trains_decoder else rows[latents], dim=1)
    columns = dictionary.W_enc
    columns[:, latents] = (gain * columns[:, living].norm(dim=0).mean() * unit).t()
    dictionary.b_enc[latents] = 0
    if trains_decoder:
        rows[latents] = rows[living].norm(dim=1).mean() * unit
    for name, parameter in parameters.items():
        if name != "b_enc" and list(parameter.shape) == [dictionary.width]:
            parameter[latents] = parameter[living].mean(0)
    _forget(latents, dictionary.width, parameters, optimizer)
    return latents


def check_restartable(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse a training in which writing an encoder's column would change nothing.

    Raises:
        ValueRangeError: if the encoder is made of other parameters.
    """
    if not {"W_enc", "b_enc"} <= parameters.keys():
        raise ValueRangeError(
            "Resampling must have an encoder that is itself trained; got one that is made of "
            f"{', '.join(parameters)}. Use another policy for dead latents, such as 'auxk'."
        )


def _is_per_latent(tensor: Tensor, width: int) -> bool:
    return tensor.ndim > 0 and tensor.shape[0] == width


def _forget(
    latents: Tensor,
    width: int,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Set the optimiser's memory of some latents to zero."""
    for name, parameter in parameters.items():
        for moment in optimizer.state[parameter].values():
            if not isinstance(moment, Tensor) or moment.shape != parameter.shape or name == "b_dec":
                continue
            if name == "W_enc":
                moment[:, latents] = 0
            elif _is_per_latent(moment, width):
                moment[latents] = 0
