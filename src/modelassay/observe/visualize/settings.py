"""How images are optimised, and settings that others have published."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.observe.visualize.magnitude_constrained import MagnitudeConstrained
from modelassay.observe.visualize.parametrisation import FOURIER, Parametrisation
from modelassay.observe.visualize.transforms import LUCID, Crops, Pad, Transform, Warp

ROBUST: tuple[Transform, ...] = (Pad(4), Warp(shift=8.0, factors=(0.9, 1.1), degrees=10.0))
"""What lucid's set does, in one resampling and without its wide border (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How images are optimised; the defaults are ours (`docs/visualize.md` says what they gain)."""

    size: tuple[int, int] = (128, 128)
    """Height and width."""
    steps: int = 256
    optimizer: Literal["adam", "nadam"] = "adam"
    learning_rate: float = 0.1
    """Twice lucid's (ours): higher scores, still with the colours of a picture."""
    schedule: Literal["constant", "falling"] = "falling"
    """Falling: in proportion to the share of steps that is left, from half of them on (ours)."""
    redirect_steps: int = 16
    """First steps in which gradients pass rectifiers that are closed everywhere (lucid: 16)."""
    parametrisation: Parametrisation = FOURIER
    transforms: tuple[Transform, ...] = ROBUST

    def __post_init__(self) -> None:
        if min(self.size) < 2 or self.steps < 1 or self.redirect_steps < 0:
            raise ValueRangeError(
                "An image must have sides of at least 2 pixels and at least 1 step; got "
                f"{self.size}, {self.steps} steps, {self.redirect_steps} redirected. "
                "Pass positive numbers."
            )
        if not self.learning_rate > 0:
            raise ValueRangeError(
                f"learning_rate must be above 0; got {self.learning_rate}. lucid's is 0.05."
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if self.schedule == "constant":
            return self.learning_rate
        left = 1 - step / self.steps
        return self.learning_rate * min(1.0, 2 * left)

    def as_json(self) -> dict[str, Any]:
        """In words, for a reader: settings may hold tensors."""
        return {
            "size": list(self.size),
            "steps": self.steps,
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule,
            "redirect_steps": self.redirect_steps,
            "parametrisation": type(self.parametrisation).__name__,
            "transforms": [repr(transform) for transform in self.transforms],
        }


DEFAULT = Settings()
"""Ours."""

LUCID_SETTINGS = Settings(steps=512, learning_rate=0.05, schedule="constant", transforms=LUCID)
"""lucid's defaults: Adam 0.05, Fourier coefficients of deviation 0.01, its standard set."""

MACO_SETTINGS = Settings(
    size=(512, 512),
    optimizer="nadam",
    learning_rate=1.0,
    schedule="constant",
    parametrisation=MagnitudeConstrained(),
    transforms=(Crops(),),
)
"""MaCo as xplique has it: 256 steps of Nadam, 32 crops a step."""

PRESETS = {"default": DEFAULT, "lucid": LUCID_SETTINGS, "maco": MACO_SETTINGS}


def preset(name: str, size: int | None = None, steps: int | None = None) -> Settings:
    """Published settings by name, with another size or number of steps.

    Raises:
        UnknownNameError: for a name that is not in `PRESETS`.
    """
    if name not in PRESETS:
        raise UnknownNameError("Settings", name, PRESETS)
    chosen = PRESETS[name]
    if size is not None:
        chosen = replace(chosen, size=(size, size))
    return chosen if steps is None else replace(chosen, steps=steps)
