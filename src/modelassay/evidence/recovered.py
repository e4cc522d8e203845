"""Loss recovered: does the rest of the network still work on the reconstruction?"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.progress import Progress, default_progress
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.evidence import Evidence, single
from modelassay.evidence.intervals import Statistic, document_interval
from modelassay.evidence.predictions import final_residual, kl_nats, log_predictions
from modelassay.evidence.sites import site_of
from modelassay.subjects.subject import Subject

ABLATIONS = ("zero", "mean", "resample")
_CONDITIONS = ("clean", "spliced", *ABLATIONS)
_TITLES = {
    "clean": "the model as it is",
    "spliced": "the reconstruction spliced in",
    "zero": "zeros spliced in",
    "mean": "the mean activation spliced in",
    "resample": "random tokens' activations spliced in",
}
_BATCH_CONTEXTS = 16
_MAX_LOGITS = 2**24  # logits held at once, per condition: 64 MiB in float32 (ours)
_DEFINITIONS = {
    "ce": "the mean surprise of the next token",
    "kl": "the mean KL divergence from the clean prediction",
}
_NULL = "The mean activation spliced in for every token: no information about the token."


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """One loss under every condition: sums over the measured tokens of each document."""

    name: str
    """"ce" or "kl"."""
    title: str
    sums: Float[Tensor, "document condition"]
    """In nats, float64, per condition of `_CONDITIONS`."""
    tokens: Float[Tensor, "document 1"]
    """How many tokens were summed."""


def loss_recovered(
    subject: Subject,
    decomposition: Decomposition,
    contexts: TokenizedCorpus,
    *,
    reference: Float[Tensor, "row d"],
    generator: torch.Generator,
    progress: Progress | None = None,
) -> dict[str, Evidence]:
    """Cross-entropy and KL with the reconstruction in place of the activation.

    `(L_ablated - L_spliced) / (L_ablated - L_clean)` for the cross-entropy L of the next token, and
    `1 - KL_spliced / KL_ablated`: 1 is as good as the model itself, 0 as bad as the ablation. The
    three ablations put zeros, the mean, or random other tokens' activations in place. Zeros are so
    harmful to a residual stream that almost everything scores near 1 against them; the mean and the
    resample ablation are the stricter scales.

    Args:
        subject: the model.
        decomposition: reads and writes the same site.
        contexts: held-out contexts; only measured tokens are replaced (not BOS, not padding).
        reference: activations at the site, from which the mean and the resamples come.
        generator: for the resample ablation and the bootstrap.
        progress: where to report.

    Returns:
        `ce_recovered_*` and `kl_recovered_*` for each ablation, and the raw `ce_*` and `kl_*`;
        only the KL where no measured token has a next one to predict.

    Reference: Karvonen et al. 2025 (SAEBench), core metrics; we add the mean and the resample
    ablation, intervals, and a null.
    """
    evidence: list[Evidence] = []
    for losses in _measure(subject, decomposition, contexts, reference, generator, progress):
        # The KL of the clean run to itself is 0 by definition: nothing to report.
        conditions = _CONDITIONS if losses.name == "ce" else _CONDITIONS[1:]
        evidence += [_raw(losses, condition, generator) for condition in conditions]
        evidence += [_recovered(losses, ablation, generator) for ablation in ABLATIONS]
    return {each.name: each for each in evidence}


def _measure(
    subject: Subject,
    decomposition: Decomposition,
    contexts: TokenizedCorpus,
    reference: Float[Tensor, "row d"],
    generator: torch.Generator,
    progress: Progress | None,
) -> tuple[Losses, ...]:
    site = site_of(decomposition)
    document = torch.unique(contexts.document, return_inverse=True)[1]
    mean = reference.mean(0)
    sums = torch.zeros(2, int(document.max()) + 1, len(_CONDITIONS), dtype=torch.float64)
    counts = torch.zeros(2, sums.shape[1], 1, dtype=torch.float64)
    with (progress or default_progress()).task(
        "Loss recovered", total=len(contexts), unit="contexts"
    ) as task:
        for part in torch.arange(len(contexts)).split(_BATCH_CONTEXTS):
            batch = contexts[part]
            measured = batch.measured.to(subject.device)
            downstream = subject.downstream(
                site, batch.tokens.to(subject.device), mask=batch.mask.to(subject.device)
            )
            rows = downstream.activation[measured]
            drawn = torch.randint(len(reference), (len(rows),), generator=generator)
            replacements = (
                rows,
                decomposition(rows),
                torch.zeros_like(rows),
                mean.to(rows).expand_as(rows),
                reference[drawn].to(rows),
            )
            residuals = []
            for replacement in replacements:
                edited = downstream.activation.clone()
                edited[measured] = replacement.to(edited.dtype)
                residuals.append(final_residual(subject, downstream, edited)[measured])
            losses, followed = _losses(subject, torch.stack(residuals), batch)
            owner = document[part][:, None].expand_as(batch.measured)[batch.measured]
            sums.index_add_(1, owner, losses)
            counts[0].index_add_(0, owner, followed.double()[:, None])
            counts[1].index_add_(0, owner, torch.ones(len(owner), 1, dtype=torch.float64))
            task.advance(len(batch))
    kl = Losses(name="kl", title="KL divergence", sums=sums[1], tokens=counts[1])
    if counts[0].sum() == 0:
        return (kl,)
    return (Losses(name="ce", title="Cross-entropy", sums=sums[0], tokens=counts[0]), kl)


def _losses(
    subject: Subject, residuals: Float[Tensor, "condition row d_model"], batch: TokenizedCorpus
) -> tuple[Float[Tensor, "loss row condition"], Bool[Tensor, " row"]]:
    """Cross-entropy and KL per measured token and condition, and which tokens have a next one.

    The cross-entropy is 0 where there is no next token.
    """
    has_next = batch.measured.clone()
    has_next[:, :-1] &= batch.mask[:, 1:]
    has_next[:, -1] = False
    followed = has_next[batch.measured]
    following = batch.tokens.roll(-1, dims=1)[batch.measured].to(subject.device)
    losses = torch.zeros(2, residuals.shape[1], len(residuals), dtype=torch.float64)
    for rows in torch.arange(residuals.shape[1]).split(max(1, _MAX_LOGITS // subject.vocab_size)):
        clean = log_predictions(subject, residuals[0, rows])
        for condition, residual in enumerate(residuals):
            log_q = log_predictions(subject, residual[rows]) if condition else clean
            surprise = -log_q.gather(1, following[rows, None])[:, 0]
            losses[0, rows, condition] = surprise.double().cpu()
            losses[1, rows, condition] = kl_nats(clean, log_q).double().cpu()
    losses[0, ~followed] = 0
    return losses, followed


def _raw(losses: Losses, condition: str, generator: torch.Generator) -> Evidence:
    column, mean = _CONDITIONS.index(condition), _CONDITIONS.index("mean")
    tables = (losses.sums[:, [column]], losses.tokens)
    interval = document_interval(tables, torch.div, generator)
    tokens = losses.tokens.sum()
    return Evidence(
        name=f"{losses.name}_{condition}",
        title=f"{losses.title}, {_TITLES[condition]}",
        scope="decomposition",
        value=single(float(tables[0].sum() / tokens)),
        low=interval.low,
        high=interval.high,
        null=single(float(losses.sums[:, mean].sum() / tokens)),
        null_description=_NULL,
        n=tokens.long()[None],
        unit="nats per token",
        better="lower" if condition == "spliced" else "neither",
        definition=f"L = {_DEFINITIONS[losses.name]}, with {_TITLES[condition]} at the site, over "
        "measured held-out tokens, which n counts.",
        references=("karvonen2025",),
    )


def _recovered(losses: Losses, ablation: str, generator: torch.Generator) -> Evidence:
    ablated = _CONDITIONS.index(ablation)

    def share(condition: str) -> Statistic:
        column, clean = _CONDITIONS.index(condition), _CONDITIONS.index("clean")

        def statistic(sums: Tensor) -> Tensor:
            span = sums[:, [ablated]] - sums[:, [clean]]
            # An ablation that does no harm leaves nothing to recover.
            return ((sums[:, [ablated]] - sums[:, [column]]) / span).where(span > 0, torch.nan)

        return statistic

    total = losses.sums.sum(0, keepdim=True)
    interval = document_interval((losses.sums,), share("spliced"), generator)
    return Evidence(
        name=f"{losses.name}_recovered_{ablation}",
        title=f"{losses.title} recovered, against {_TITLES[ablation]}",
        scope="decomposition",
        value=single(float(share("spliced")(total))),
        low=interval.low,
        high=interval.high,
        null=single(float(share("mean")(total))),
        null_description=_NULL,
        n=losses.tokens.sum().long()[None],
        unit="share",
        better="higher",
        definition="(L_ablated - L_spliced) / (L_ablated - L_clean), where L is "
        f"{_DEFINITIONS[losses.name]} and the ablation is {_TITLES[ablation]}; over measured "
        "held-out tokens, which n counts.",
        references=("karvonen2025",),
    )
