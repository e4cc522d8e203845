"""`TrainingOptions`: how a run trains, whatever it trains."""

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal, get_args

from modelassay.core.errors import ValueRangeError
from modelassay.core.provenance import Fact

OptimizerName = Literal["adam", "signum", "muon"]
ScheduleName = Literal["linear", "cosine", "constant"]
Precision = Literal["float32", "bfloat16", "auto"]
Normalisation = Literal["scale", "whitening"]
DeadLatentPolicy = Literal["default", "auxk", "pre_activation", "resample", "none"]
BadBatchPolicy = Literal["stop", "skip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingOptions:
    """How a run trains; the defaults are what the library recommends.

    Part of a plan, and so of checkpoints and provenance: a run goes on only with equal options.
    """

    optimizer: OptimizerName = "adam"
    """Adam; Signum, the sign of a momentum; or Muon for the matrices and Adam for the rest."""
    schedule: ScheduleName = "linear"
    """How the learning rate falls after its warm-up: linearly over the last `decay_share`, as a
    half cosine over all of the run, or not at all."""
    warmup_steps: int = 1000
    """Steps until the full learning rate, in long runs (Gao et al. 2024; trainers since)."""
    warmup_share: float = 0.05
    """Share of the run that warm-up may take at most, so that short runs learn too (ours)."""
    decay_share: float = 0.2
    """Share of the run, at its end, over which a linear schedule falls to zero."""
    initial_k: int | None = None
    """Active latents a token in the first step, falling linearly to the recipe's k; None for k
    from the start."""
    k_share: float = 0.1
    """Share of the run over which k falls (Llamascopium's; dictionary_learning's is the user's)."""
    sparsity_share: float = 0.1
    """Share of the run over which a sparsity penalty grows to its full size."""
    precision: Precision = "float32"
    """Of the encoder's product, in which latents are chosen; all else is float32."""
    normalisation: Normalisation = "scale"
    """Train on activations of mean norm sqrt(d), or on whitened ones; either is folded into the
    weights at the end."""
    dead_latents: DeadLatentPolicy = "default"
    """What is done about latents that no longer fire: what the recipe does by itself (AuxK for
    the TopK family, nothing for others), AuxK, the pre-activation loss, resampling, or nothing."""
    auxk_coefficient: float = 1 / 32
    """Where `dead_latents` is "auxk" (Gao et al. 2024, appendix A.2)."""
    auxk_straight_through: bool = False
    """Whether AuxK teaches latents that are negative everywhere, too (see `AuxK`)."""
    pre_activation_coefficient: float = 3e-3
    """Where `dead_latents` is "pre_activation" (ours: the reference's 3e-6 is for runs of 10^5
    steps, and does nothing in 10^3)."""
    resampling_share: float = 0.1
    """Steps from one resampling to the next, as a share of the run's, where `dead_latents` is
    "resample" (ours)."""
    resampling_gain: float = 0.05
    """Norm of a resampled latent's encoder column, as a multiple of the living ones' mean
    (ours; 0.2 in Bricken et al. 2023)."""
    bad_batches: BadBatchPolicy = "stop"
    """What is done about batches with NaN or Inf: stop with an error that names them, or leave
    them out, as if they had not come, and count them."""

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueRangeError(
                    f"{name} must be one of {', '.join(allowed)}; got {value!r}. "
                    f"Use {allowed[0]!r}."
                )
        for name in (
            "warmup_share",
            "decay_share",
            "k_share",
            "sparsity_share",
            "resampling_share",
        ):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueRangeError(
                    f"{name} must be between 0 and 1; got {value}. It is a share of the run."
                )
        for name in ("auxk_coefficient", "pre_activation_coefficient", "resampling_gain"):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0):
                raise ValueRangeError(
                    f"{name} must be finite and above 0; got {value}. "
                    "Choose dead_latents='none' to do nothing."
                )
        if self.warmup_steps < 0:
            raise ValueRangeError(
                f"warmup_steps must be at least 0; got {self.warmup_steps}. Use about 1000."
            )
        if self.initial_k is not None and self.initial_k < 1:
            raise ValueRangeError(
                f"initial_k must be at least 1; got {self.initial_k}. Use 2 to 10 times k."
            )

    def as_json(self) -> dict[str, Any]:
        """Plain dictionary for checkpoints."""
        return asdict(self)

    def facts(self) -> dict[str, Fact]:
        """What provenance says of them."""
        return {
            name: value if isinstance(value, str | int | float | None) else str(value)
            for name, value in self.as_json().items()
        }


_ALLOWED: dict[str, tuple[str, ...]] = {
    "optimizer": get_args(OptimizerName),
    "schedule": get_args(ScheduleName),
    "precision": get_args(Precision),
    "normalisation": get_args(Normalisation),
    "dead_latents": get_args(DeadLatentPolicy),
    "bad_batches": get_args(BadBatchPolicy),
}

USUAL = TrainingOptions()
"""What a run does that is asked for nothing else."""
