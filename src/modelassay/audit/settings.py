"""How much an audit measures."""

from dataclasses import dataclass

from modelassay.core.errors import ValueRangeError


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditSettings:
    """Sample sizes of an audit: more is slower and gives narrower intervals."""

    read_samples: int = 48
    """Interventions per latent in the read test, each beside its matched controls."""
    read_horizon: int = 8
    """Tokens after the intervention whose predictions are compared."""
    read_positions: int = 64
    """Interventions stand before this position of a context: later ones cost more (ours)."""
    baseline_latents: int = 40
    """Latents of each baseline that are audited (a random sample)."""
    recovered_tokens: int = 24_000
    """Held-out tokens at which the reconstruction is spliced in, about."""
    visible_tokens: int = 24_000
    """Held-out tokens on which the Fisher metric is estimated, about."""
    null_directions: int = 256
    """Random directions drawn as the null of the visible variance."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) < 1:
                raise ValueRangeError(
                    f"{name} must be at least 1; got {getattr(self, name)}. Raise it."
                )
