"""How well a decomposition recovers the features of a synthetic model.

With unit directions w_i of the latents, true directions d_j and ``c_ij = |w_i . d_j|``::

    MCC        = mean of c over the best one-to-one assignment of latents to features
    j(i)       = argmax_j c_ij
    uniqueness = number of different j(i) / number of latents
    precision  = mean over latents of TP_i / (TP_i + FP_i),   latent i as a detector of j(i)
    recall     = mean over latents of TP_i / (TP_i + FN_i)
    F1         = mean over latents of 2 TP_i / (2 TP_i + FP_i + FN_i)

Whatever is 0 / 0 counts as 0: a dead latent detects nothing. The assignment has as many pairs as
there are latents or features, whichever are fewer.

Reference: Chanin & Garriga-Alonso 2026, and SAELens' `eval_sae_on_synthetic_data`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.scores import cosine
from modelassay.testbeds.synthetic import SyntheticModel

_BATCH_ENTRIES = 2**25  # (sample, feature) pairs that are held as Booleans at once: ours


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticScores:
    """What a decomposition recovers of known features; all shares but the two L0s."""

    mcc: float
    f1: float
    precision: float
    recall: float
    uniqueness: float
    explained_variance: float
    """``1 - E|x - x̂|² / E|x - E x|²``."""
    l0: float
    """Active latents of a sample, on average."""
    true_l0: float
    """Active features of a sample, on average."""
    dead_share: float
    """Share of latents that fired on none of the samples."""
    samples: int


def mean_correlation(
    directions: Float[Tensor, "latent d"], features: Float[Tensor, "feature d"]
) -> float:
    """MCC: mean |cosine| of the best one-to-one assignment."""
    similarity = cosine(directions, features.to(directions)).cpu()
    rows, columns = linear_sum_assignment(similarity.double().numpy(), maximize=True)
    return float(similarity[rows, columns].double().mean())


def uniqueness(
    directions: Float[Tensor, "latent d"], features: Float[Tensor, "feature d"]
) -> float:
    """Share of latents whose nearest feature counts anew."""
    nearest = cosine(directions, features.to(directions)).argmax(1)
    return len(nearest.unique()) / len(directions)


def synthetic_scores(
    decomposition: Decomposition,
    model: SyntheticModel,
    *,
    samples: int = 100_000,
    generator: torch.Generator,
) -> SyntheticScores:
    """All scores, on fresh samples.

    Args:
        decomposition: of activations of the model's width.
        model: the truth.
        samples: on which detection, reconstruction and sparsity are measured.
        generator: draws them.

    Raises:
        ShapeError: if the widths differ.
        TooFewTokensError: if fewer than two samples are asked for.
    """
    if decomposition.d_in != model.spec.d or decomposition.d_out != model.spec.d:
        raise ShapeError(
            f"The decomposition must read and write width {model.spec.d}; got "
            f"{decomposition.d_in} and {decomposition.d_out}. Fit it on this model's activations."
        )
    if samples < 2:
        raise TooFewTokensError(
            f"Scores need at least 2 samples; got {samples}. Use 100,000 or more."
        )
    features = model.directions
    directions = decomposition.directions.to(features)
    nearest = cosine(directions, features).argmax(1)
    counts = _Counts.zero(len(directions), model)
    for truth in _draws(model, samples, generator):
        x = model.activations(truth)
        codes = decomposition.encode(x)
        counts.add(x, decomposition.decode(codes).to(x), _fires(codes), _fires(truth), nearest)
    hits, called, present = counts.hits, counts.called, counts.present
    return SyntheticScores(
        mcc=mean_correlation(directions, features),
        f1=_mean_ratio(2 * hits, called + present),
        precision=_mean_ratio(hits, called),
        recall=_mean_ratio(hits, present),
        uniqueness=len(nearest.unique()) / len(nearest),
        explained_variance=counts.explained_variance,
        l0=float(called.sum()) / samples,
        true_l0=counts.true_firings / samples,
        dead_share=float((called == 0).double().mean()),
        samples=samples,
    )


@dataclass(kw_only=True, slots=True)
class _Counts:
    """Sums over samples."""

    hits: Tensor
    """Samples on which a latent and its feature fire."""
    called: Tensor
    """Samples on which a latent fires."""
    present: Tensor
    """Samples on which a latent's feature fires."""
    total: Tensor
    """Sum of ``x - b``; about the true bias, so that little cancels."""
    origin: Tensor
    squares: float = 0.0
    errors: float = 0.0
    true_firings: int = 0
    samples: int = 0

    @staticmethod
    def zero(n_latents: int, model: SyntheticModel) -> "_Counts":
        hits, called, present = torch.zeros(
            3, n_latents, dtype=torch.float64, device=model.device
        ).unbind()
        origin = model.bias.double()
        return _Counts(
            hits=hits,
            called=called,
            present=present,
            total=torch.zeros_like(origin),
            origin=origin,
        )

    def add(
        self,
        x: Float[Tensor, "sample d"],
        x_hat: Float[Tensor, "sample d"],
        latents: Bool[Tensor, "sample latent"],
        features: Bool[Tensor, "sample feature"],
        nearest: Tensor,
    ) -> None:
        latents = latents.to(features.device)
        detected = features[:, nearest]
        self.hits += (latents & detected).sum(0)
        self.called += latents.sum(0)
        self.present += detected.sum(0)
        centred = x.double() - self.origin
        self.total += centred.sum(0)
        self.squares += float(centred.square().sum())
        self.errors += float((x - x_hat).double().square().sum())
        self.true_firings += int(features.sum())
        self.samples += len(x)

    @property
    def explained_variance(self) -> float:
        variance = self.squares - float(self.total.square().sum()) / self.samples
        return 1 - self.errors / variance


def _draws(model: SyntheticModel, samples: int, draw: torch.Generator) -> Iterator[Codes]:
    step = max(1, _BATCH_ENTRIES // model.spec.n_features)
    for start in range(0, samples, step):
        yield model.codes(min(step, samples - start), draw)


def _fires(codes: Codes) -> Bool[Tensor, "sample latent"]:
    fires = torch.zeros(codes.n_tokens, codes.width, dtype=torch.bool, device=codes.indices.device)
    rows, slots = codes.active().nonzero(as_tuple=True)
    fires[rows, codes.indices[rows, slots]] = True
    return fires


def _mean_ratio(above: Tensor, below: Tensor) -> float:
    return float(torch.where(below > 0, above / below.clamp(min=1), 0.0).mean())
