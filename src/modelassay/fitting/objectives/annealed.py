"""A penalty on a power of the latents' values that falls while they learn."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.fitting.objectives.objective import Forward

_RECENT = 10  # steps whose means are compared when p falls: dictionary_learning
_SMALLEST = 1e-3  # of values, in units of activations of norm sqrt(d): ours


class AnnealedPower:
    """Mean sum of a falling power of the values: `λ mean_t Σ_i (z_ti |d_i|)^p / V`.

    p is 1 up to `start_share` of the run, then takes `p_steps` equally spaced values down to
    `p_end`, the last one at `end_share`. When it goes from p to q, λ is multiplied with the ratio
    of the means of `Σ z^p` and `Σ z^q` over the last 10 steps, so that the penalty stays as large
    as it was. The first value of p is that of `L1`.

    The power is taken as `(z + ε)^p - ε^p` with ε = 0.001 (ours): the gradient of `z^p` is without
    bound at 0, where most values are.

    Reference:
        Karvonen et al. 2024, "Measuring progress in dictionary learning for language model
        interpretability with board game models", section 4; the rule for λ as in
        dictionary_learning.

    Args:
        coefficient: λ at p = 1.
        p_end: the last p.
        p_steps: how often p falls.
        start_share: share of the run after which p falls first.
        end_share: share of the run after which p has its last value.
    """

    def __init__(
        self,
        *,
        coefficient: float,
        p_end: float,
        p_steps: int,
        start_share: float,
        end_share: float,
    ) -> None:
        self.p_end = p_end
        self.p_steps = p_steps
        self.start_share = start_share
        self.end_share = end_share
        self.falls = 0
        """How often p has fallen."""
        self._seen = 0  # steps since it last fell
        self._coefficient = torch.tensor(coefficient)
        self._recent = torch.zeros(_RECENT, 2)  # sums at p and at the next p

    def over_all(self, sums: Float[Tensor, " power"]) -> Float[Tensor, " power"]:
        """Sums over the latents and means over the tokens that are not here, too."""
        return sums

    @property
    def p(self) -> float:
        """The present power."""
        return self._power(self.falls)

    def __call__(self, forward: Forward) -> Float[Tensor, ""]:
        """The term's value on a batch; counts as a step of the run."""
        # At most one fall a step, so that the sums of the last steps are of the right powers.
        if self._seen and self.falls < self._falls_by(forward.progress):
            self._fall()
        values = forward.codes.weighted(forward.penalty_weights())
        n = len(forward.activations)
        penalty = _sum_of_powers(values, self.p) / n
        with torch.no_grad():
            coming = _sum_of_powers(values, self._power(self.falls + 1)) / n
            self._recent = self._recent.to(penalty.device)
            self._recent[self._seen % _RECENT] = self.over_all(torch.stack([penalty, coming]))
        self._seen += 1
        self._coefficient = self._coefficient.to(penalty.device)
        return self._coefficient * forward.sparsity_factor * penalty / forward.total_variance

    def _power(self, falls: int) -> float:
        return 1 - (1 - self.p_end) * min(falls, self.p_steps) / self.p_steps

    def _falls_by(self, progress: float) -> int:
        """How often p is to have fallen by some share of the run."""
        if progress < self.start_share:
            return 0
        if self.p_steps == 1 or progress >= self.end_share:
            return self.p_steps
        done = (progress - self.start_share) / (self.end_share - self.start_share)
        return 1 + int(done * (self.p_steps - 1))

    def _fall(self) -> None:
        now, coming = self._recent[: min(self._seen, _RECENT)].sum(0)
        # Where nothing was active, there is nothing to keep equal.
        ratio = torch.where(coming > 0, now / coming.clamp(min=1e-30), 1.0)
        self._coefficient = self._coefficient * ratio
        self.falls += 1
        self._seen = 0
        self._recent = torch.zeros_like(self._recent)

    def state(self) -> dict[str, Tensor]:
        """λ, how often p has fallen, and the sums of the last steps."""
        return {
            "coefficient": self._coefficient,
            "falls": torch.tensor(self.falls),
            "seen": torch.tensor(self._seen),
            "recent": self._recent,
        }

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from where the term stood whose `state` this was."""
        self._coefficient = tensors["coefficient"].clone()
        self.falls, self._seen = int(tensors["falls"]), int(tensors["seen"])
        self._recent = tensors["recent"].clone()


def _sum_of_powers(values: Float[Tensor, "*selected"], p: float) -> Float[Tensor, ""]:
    if p == 1:
        return values.sum()
    powers = (values + _SMALLEST).pow(p) - _SMALLEST**p
    # Most values are 0, and rounding would leave a little of each.
    return powers.where(values > 0, 0.0).sum()
