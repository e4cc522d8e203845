"""How often latents fire: L0, dead and dense shares, firing rate and strength."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.decompositions.codes import Codes
from modelassay.evidence.documents import sum_by_document, tokens_by_document
from modelassay.evidence.evidence import Better, Evidence, single
from modelassay.evidence.intervals import (
    MIN_DOCUMENTS,
    MIN_FIRINGS,
    Interval,
    Statistic,
    document_interval,
)

DENSE_RATE = 0.1
"""A latent that fires on more than this share of tokens is dense (SAEBench's core metrics)."""
SURROGATE = "The same decomposition on Gaussian noise with the activations' mean and covariance."


def firings_by_document(
    codes: Codes, document_of_row: Int[Tensor, " token"]
) -> Float[Tensor, "document latent"]:
    """How many tokens of each document each latent fires on."""
    firings = codes.to_scipy() != 0
    return sum_by_document(firings.astype(float), document_of_row)


def too_thin(firings: Float[Tensor, "document latent"]) -> Bool[Tensor, " latent"]:
    """True for latents with too few firings, or in too few documents, for any claim."""
    return (firings.sum(0) < MIN_FIRINGS) | ((firings > 0).sum(0) < MIN_DOCUMENTS)


def code_statistics(
    codes: Codes,
    surrogate_codes: Codes,
    document_of_row: Int[Tensor, " token"],
    generator: torch.Generator,
) -> tuple[Evidence, Evidence, Evidence]:
    """L0, dead share and dense share of held-out codes.

    Args:
        codes: held-out codes.
        surrogate_codes: codes of structureless noise, as many tokens (the null).
        document_of_row: document of each token.
        generator: for the bootstrap.
    """
    tables = (firings_by_document(codes, document_of_row), tokens_by_document(document_of_row))
    null = (
        surrogate_codes.firing_counts().double()[None],
        torch.full((1, 1), float(surrogate_codes.n_tokens), dtype=torch.float64),
    )

    def evidence(
        name: str, title: str, statistic: Statistic, unit: str, better: Better, definition: str
    ) -> Evidence:
        value = float(statistic(*(table.sum(0, keepdim=True) for table in tables)))
        interval = document_interval(tables, statistic, generator)
        if name == "dead_share":
            # A resample loses documents, and some latents with them, so that it overstates the
            # dead: only the width of its interval is meaningful.
            half = (interval.high - interval.low) / 2
            interval = Interval(low=(value - half).clamp(min=0), high=(value + half).clamp(max=1))
        return Evidence(
            name=name,
            title=title,
            scope="decomposition",
            value=single(value),
            low=interval.low,
            high=interval.high,
            null=single(float(statistic(*null))),
            null_description=SURROGATE,
            n=torch.tensor([codes.n_tokens]),
            unit=unit,
            better=better,
            definition=f"{definition}; n counts tokens.",
            references=("karvonen2025",),
        )

    return (
        evidence(
            "l0", "Active latents per token (L0)", _l0, "latents", "neither",
            "Mean number of non-zero latents per held-out token",
        ),
        evidence(
            "dead_share", "Dead latents", _dead_share, "share", "lower",
            "Share of latents that never fire on the held-out tokens",
        ),
        evidence(
            "dense_share", "Dense latents", _dense_share, "share", "lower",
            f"Share of latents that fire on more than {DENSE_RATE:.0%} of the held-out tokens",
        ),
    )  # fmt: skip


def latent_activity(
    codes: Codes,
    surrogate_codes: Codes,
    document_of_row: Int[Tensor, " token"],
    generator: torch.Generator,
) -> tuple[Evidence, Evidence]:
    """Firing rate and mean value while firing, per latent, on held-out codes."""
    firings = firings_by_document(codes, document_of_row)
    strength = sum_by_document(codes.to_scipy(), document_of_row)
    n_tokens = tokens_by_document(document_of_row)
    null_firings = surrogate_codes.firing_counts().double()
    null_strength = torch.from_numpy(surrogate_codes.to_scipy().sum(0)).view(-1).double()
    interval = document_interval((firings, n_tokens), torch.div, generator)
    rate = Evidence(
        name="firing_rate",
        title="Firing rate",
        scope="latent",
        value=(firings.sum(0) / n_tokens.sum()).float(),
        low=interval.low,
        high=interval.high,
        null=(null_firings / surrogate_codes.n_tokens).float(),
        null_description=SURROGATE,
        n=torch.full((codes.width,), codes.n_tokens),
        unit="share of tokens",
        better="neither",
        definition="Share of held-out tokens on which the latent is not zero; n counts tokens.",
    )
    interval = document_interval((strength, firings), torch.div, generator)
    thin = too_thin(firings)
    mean = Evidence(
        name="mean_activation",
        title="Mean value while firing",
        scope="latent",
        value=(strength.sum(0) / firings.sum(0)).float().masked_fill(thin, torch.nan),
        low=interval.low.masked_fill(thin, torch.nan),
        high=interval.high.masked_fill(thin, torch.nan),
        null=(null_strength / null_firings).float(),
        null_description=SURROGATE,
        n=firings.sum(0).to(torch.int64),
        unit="activation",
        better="neither",
        definition="Mean of the latent over the held-out tokens on which it is not zero; n counts "
        "those tokens.",
    )
    return rate, mean


def _l0(firings: Tensor, n_tokens: Tensor) -> Tensor:
    return firings.sum(1, keepdim=True) / n_tokens


def _dead_share(firings: Tensor, n_tokens: Tensor) -> Tensor:
    del n_tokens
    return (firings == 0).double().mean(1, keepdim=True)


def _dense_share(firings: Tensor, n_tokens: Tensor) -> Tensor:
    return (firings > DENSE_RATE * n_tokens).double().mean(1, keepdim=True)
