"""How much larger is an effect than its control's? The ratio of means, with interval and test.

A mean, not a median of single ratios: a feature that is used only beside another one has no effect
most of the time and a large one in the rest, and it is used all the same.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.evidence.evidence import Evidence
from modelassay.evidence.intervals import Interval, document_interval, false_discovery_q_values

N_SWAPS = 9999
"""Random exchanges of the test: p-values have steps of 1 / 10,000 (ours)."""
_CHUNK = 500  # exchanges at a time: bounds memory


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectRatio:
    """Log of the mean effect over the mean of its control; NaN where there are no samples."""

    value: Float[Tensor, " latent"]
    interval: Interval
    p_value: Float[Tensor, " latent"]
    """Two-sided: effect and control are exchangeable within every document."""


def effect_ratio(
    effect: Float[Tensor, "document latent"],
    control: Float[Tensor, "document latent"],
    generator: torch.Generator,
) -> EffectRatio:
    """``log(sum of effects / sum of controls)``, a bootstrap over documents, and a swap test.

    Args:
        effect: sums over each document's samples, 0 where it has none; float64.
        control: of the same samples.
        generator: for the bootstrap and the test.
    """
    value = _log_ratio(effect.sum(0, keepdim=True), control.sum(0, keepdim=True))[0]
    return EffectRatio(
        value=value.float(),
        interval=document_interval((effect, control), _log_ratio, generator),
        p_value=swap_p_values(effect, control, generator),
    )


def ratio_evidence(
    found: EffectRatio,
    *,
    name: str,
    title: str,
    control: str,
    effect: str,
    over: str,
    n: Int[Tensor, " latent"],
) -> Evidence:
    """The ratio as evidence.

    Args:
        found: the numbers.
        name: of the evidence.
        title: for readers.
        control: what the control is, in words.
        effect: what the effect is, in words.
        over: what is resampled and exchanged: "documents".
        n: samples per latent.
    """
    return Evidence(
        name=name,
        title=title,
        scope="latent",
        value=found.value,
        low=found.interval.low,
        high=found.interval.high,
        null=torch.zeros_like(found.value),
        null_description=f"The latent has the effect of {control}, of equal norm and at the same "
        "place: log ratio 0.",
        p_value=found.p_value,
        q_value=false_discovery_q_values(found.p_value),
        n=n,
        unit="log ratio",
        better="higher",
        definition="log(mean effect of resampling the latent's value / mean effect of "
        f"{control}), where the effect is {effect}. The interval is a bootstrap over {over}; the "
        f"p-value is two-sided and exchanges effect and control within {over}. n counts samples.",
        references=("lee2024", "fisher1935", "benjamini1995"),
    )


def swap_p_values(
    effect: Float[Tensor, "document latent"],
    control: Float[Tensor, "document latent"],
    generator: torch.Generator,
) -> Float[Tensor, " latent"]:
    """Two-sided p-values that effects and their controls are exchangeable.

    In every document the two sums change places with probability 1/2. The p-value is the share of
    `N_SWAPS` such draws, and of the data themselves, whose |log ratio of totals| is as large; it is
    exact up to the number of draws (Fisher 1935; Phipson & Smyth 2010 for counting the data).
    """
    total = effect.sum(0) + control.sum(0)
    observed = _log_ratio(effect.sum(0), control.sum(0)).abs()
    as_large = torch.zeros_like(observed)
    for done in range(0, N_SWAPS, _CHUNK):
        shape = (min(_CHUNK, N_SWAPS - done), len(effect))
        kept = torch.randint(2, shape, generator=generator).to(effect.dtype)
        swapped = control.sum(0) + kept @ (effect - control)
        # Rounding must not make an exchange of nothing smaller than the data.
        as_large += (_log_ratio(swapped, total - swapped).abs() >= observed - 1e-9).sum(0)
    return ((1 + as_large) / (1 + N_SWAPS)).masked_fill(total == 0, torch.nan).float()


def _log_ratio(effect: Tensor, control: Tensor) -> Tensor:
    return (effect / control).log()
