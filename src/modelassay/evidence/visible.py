"""Visible variance: how much of a latent's variance does the output see?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.core.progress import Progress, default_progress
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.activity import too_thin
from modelassay.evidence.evidence import Evidence, single
from modelassay.evidence.intervals import document_interval
from modelassay.evidence.sites import site_of
from modelassay.evidence.surrogate import random_directions
from modelassay.subjects.fisher import score_gradients
from modelassay.subjects.subject import Subject

_MAX_ENTRIES = 2**24  # entries of one dense block of values: 64 MiB in float32 (ours)
_MAX_LOGITS = 2**25  # logits of one batch: 128 MiB in float32 (ours)
_NEIGHBOURS = 31  # null directions nearest in variance, whose median is a latent's null (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Visibility:
    """Variance in two metrics, per latent and per null direction, and the evidence from it."""

    visible_variance: Evidence
    explained_variance_fisher: Evidence
    euclidean: Float[Tensor, " latent"]
    """Variance of the latent times its direction's squared norm, activation units squared."""
    fisher: Float[Tensor, " latent"]
    """What the output sees of it: second-order KL in nats."""
    null_euclidean: Float[Tensor, " direction"]
    null_fisher: Float[Tensor, " direction"]
    null_kind: tuple[str, ...]
    """"random" or "pca" for each null direction."""


class _Variances:
    """Sums per document of scalars z that move the activation along directions d."""

    def __init__(self, directions: Float[Tensor, "column d"], n_documents: int) -> None:
        self.directions = directions
        # z² q, z q, q, z², z and the number of non-zero z, with q = (g·d)² averaged over draws.
        self.sums = torch.zeros(6, n_documents, len(directions), dtype=torch.float64)

    def add(
        self,
        z: Float[Tensor, "row column"],
        gradients: Float[Tensor, "draw row d"],
        document: Int[Tensor, " row"],
    ) -> None:
        """Add some tokens."""
        q = torch.zeros_like(z)
        for gradient in gradients:
            q += (gradient @ self.directions.T).square_() / len(gradients)
        owner = torch.nn.functional.one_hot(document, self.sums.shape[1]).to(z.dtype).T
        zq = z * q
        terms = (zq * z, zq, q, z.square(), z, (z != 0).to(z.dtype))
        for total, values in zip(self.sums, terms, strict=True):
            total += owner @ values

    def euclidean(self, sums: Sequence[Tensor], n_tokens: Tensor) -> Tensor:
        """Var(z) |d|², from sums over documents."""
        _, _, _, zz, z, _ = sums
        variance = zz / n_tokens - (z / n_tokens).square()
        return variance.clamp(min=0) * self.directions.double().square().sum(1)

    def fisher(self, sums: Sequence[Tensor], n_tokens: Tensor) -> Tensor:
        """E[(z - mean z)² (g·d)²] / 2, from sums over documents."""
        zzq, zq, q, _, z, _ = sums
        mean = z / n_tokens
        return (zzq - 2 * mean * zq + mean.square() * q) / (2 * n_tokens)


def visible(
    subject: Subject,
    decomposition: Decomposition,
    codes: Codes,
    harvest: Harvest,
    *,
    n_contexts: int = 96,
    draws: int = 4,
    null_directions: int = 256,
    generator: torch.Generator,
    progress: Progress | None = None,
) -> Visibility:
    """Variance of every latent in the Fisher metric, relative to its Euclidean variance.

    With the Fisher matrix F_t of the predictions at token t, `fisher_i = E[(z - mean z)² d^T F_t d]
    / 2` is the KL in nats, to second order, of replacing the latent by its mean. Its ratio to the
    Euclidean variance is told in units of the same ratio for a direction drawn by the data's
    covariance, `tr(F Σ) / (2 tr Σ)`: 1 is no more and no less than such a direction.

    Args:
        subject: the model.
        decomposition: reads and writes one site of it.
        codes: held-out codes, one row per row of `harvest`.
        harvest: the held-out harvest of that site.
        n_contexts: random contexts to measure on.
        draws: gradients per token.
        null_directions: random directions drawn from the covariance; the principal components are
            added to them.
        generator: for all draws.
        progress: where to report.

    Reference: Chughtai & Bushnaq 2025 pose the question; the measure is ours.
    """
    site, moments = site_of(decomposition), harvest.moments(site_of(decomposition))
    covariance, mean = moments.covariance.float(), moments.mean.float()
    picked = torch.randperm(len(harvest.contexts), generator=generator)[:n_contexts].sort().values
    contexts = harvest.contexts[picked]
    codes = codes[torch.isin(harvest.rows[:, 0], picked).nonzero()[:, 0]]
    owner = torch.unique(contexts.document, return_inverse=True)[1]
    document = owner[contexts.measured.nonzero()[:, 0]]
    n_tokens = torch.bincount(document).double()[:, None]
    random = random_directions(null_directions, covariance, generator)
    pca = torch.linalg.eigh(covariance)[1].T
    latents = _Variances(decomposition.directions.detach().float().cpu(), len(n_tokens))
    nulls = _Variances(torch.cat([random, pca]), len(n_tokens))
    # (g·(x - x̂))², (g·(x - mean))² and g^T Σ g, per document.
    metric = torch.zeros(len(n_tokens), 3, dtype=torch.float64)
    step = max(1, min(16, _MAX_LOGITS // (contexts.tokens.shape[1] * subject.vocab_size)))
    done = 0
    with (progress or default_progress()).task(
        "Visible variance", total=len(contexts), unit="contexts"
    ) as task:
        for part in torch.arange(len(contexts)).split(step):
            batch = contexts[part]
            x, gradients = score_gradients(
                subject,
                site,
                batch.tokens.to(subject.device),
                batch.mask.to(subject.device),
                draws=draws,
                generator=generator,
            )
            x = x.cpu().float()[batch.measured]
            gradients = gradients.cpu().float()[:, batch.measured]
            at = slice(done, done + len(x))
            done += len(x)
            error = x - decomposition.decode(codes[at]).detach().cpu()
            for column, values in enumerate((error, x - mean)):
                squares = torch.einsum("drw,rw->dr", gradients, values).square().mean(0)
                metric[:, column].index_add_(0, document[at], squares.double())
            traces = torch.einsum("drw,wv,drv->r", gradients, covariance, gradients) / draws
            metric[:, 2].index_add_(0, document[at], traces.double())
            nulls.add((x - mean) @ nulls.directions.T, gradients, document[at])
            for rows in torch.arange(len(x)).split(max(1, _MAX_ENTRIES // codes.width)):
                dense = codes[at][rows].dense().detach().cpu().float()
                latents.add(dense, gradients[:, rows], document[at][rows])
            task.advance(len(batch))
    unit = (metric[:, 2].sum() / n_tokens.sum() / (2 * covariance.trace())).item()
    euclidean, fisher = _totals(latents, n_tokens)
    null_euclidean, null_fisher = _totals(nulls, n_tokens)
    null = _matched(euclidean, null_euclidean, null_fisher / null_euclidean / unit)
    evidence = _visible_variance(
        latents, metric[:, 2:] / (2 * covariance.trace()), n_tokens, null, generator
    )
    return Visibility(
        visible_variance=evidence,
        explained_variance_fisher=_explained(metric, n_tokens, generator),
        euclidean=euclidean,
        fisher=fisher,
        null_euclidean=null_euclidean,
        null_fisher=null_fisher,
        null_kind=("random",) * len(random) + ("pca",) * len(pca),
    )


def _totals(
    variances: _Variances, n_tokens: Float[Tensor, "document 1"]
) -> tuple[Float[Tensor, " column"], Float[Tensor, " column"]]:
    """Euclidean and Fisher variance over all documents."""
    sums = tuple(variances.sums.sum(1, keepdim=True))
    total = n_tokens.sum()
    return variances.euclidean(sums, total)[0].float(), variances.fisher(sums, total)[0].float()


def _matched(
    euclidean: Float[Tensor, " latent"],
    null_euclidean: Float[Tensor, " direction"],
    null_share: Float[Tensor, " direction"],
) -> Float[Tensor, " latent"]:
    """Median of the null directions nearest to each latent in (log) variance."""
    tiny = torch.finfo(torch.float32).tiny  # a dead latent has no variance, and no logarithm
    mine, theirs = (v.clamp(min=tiny).log() for v in (euclidean, null_euclidean))
    distance = (mine[:, None] - theirs[None, :]).abs()
    nearest = distance.topk(min(_NEIGHBOURS, len(theirs)), largest=False).indices
    return null_share[nearest].median(1).values


def _visible_variance(
    latents: _Variances,
    unit: Float[Tensor, "document 1"],
    n_tokens: Float[Tensor, "document 1"],
    null: Float[Tensor, " latent"],
    generator: torch.Generator,
) -> Evidence:
    def share(*columns: Tensor) -> Tensor:
        *sums, unit, n_tokens = columns
        ratio = latents.fisher(sums, n_tokens) / latents.euclidean(sums, n_tokens)
        return ratio * n_tokens / unit

    tables = (*latents.sums, unit, n_tokens)
    interval = document_interval(tables, share, generator)
    value = share(*(table.sum(0, keepdim=True) for table in tables))[0].float()
    firings = latents.sums[5]
    thin = too_thin(firings)
    return Evidence(
        name="visible_variance",
        title="Variance that the output sees",
        scope="latent",
        value=value.masked_fill(thin, torch.nan),
        low=interval.low.masked_fill(thin, torch.nan),
        high=interval.high.masked_fill(thin, torch.nan),
        null=null.masked_fill(thin, torch.nan),
        null_description="The same for directions of about equal variance: drawn from the "
        "activations' covariance, or principal components (median of the nearest "
        f"{_NEIGHBOURS}).",
        n=firings.sum(0).to(torch.int64),
        unit="times a covariance-drawn direction",
        better="higher",
        definition="(fisher / euclidean) / (tr(F Σ) / (2 tr Σ)): fisher is the KL, to second order "
        "and in nats over all predictions reached, of replacing the latent by its mean; euclidean "
        "is the variance that it adds; the unit is a direction drawn by the activations' "
        "covariance Σ. The Fisher matrix F is estimated by gradients of the log-probabilities of "
        "labels that the model draws itself. n counts firings.",
        references=("chughtai2025",),
    )


def _explained(
    metric: Float[Tensor, "document 3"],
    n_tokens: Float[Tensor, "document 1"],
    generator: torch.Generator,
) -> Evidence:
    def explained(sums: Tensor) -> Tensor:
        return 1 - sums[:, :1] / sums[:, 1:2]

    interval = document_interval((metric,), explained, generator)
    return Evidence(
        name="explained_variance_fisher",
        title="Explained variance, as the output sees it",
        scope="decomposition",
        value=single(float(explained(metric.sum(0, keepdim=True)))),
        low=interval.low,
        high=interval.high,
        null=single(0.0),
        null_description="Every activation predicted by the mean (0 by definition).",
        n=n_tokens.sum().long()[None],
        unit="share",
        better="higher",
        definition="1 - E[(x - x̂)^T F (x - x̂)] / E[(x - mean)^T F (x - mean)] with the Fisher "
        "matrix F of the predictions at each held-out token; n counts tokens.",
        references=("chughtai2025",),
    )
