"""What is large in the activations against what the output can see."""

import math

import numpy as np
from jaxtyping import Float

from modelassay.audit.result import Audit
from modelassay.report.parts import Paragraph, Scatter, Series
from modelassay.report.sections.verdicts import data_of

_KINDS = {"random": "random directions", "pca": "principal components"}


def how_to_read(audit: Audit) -> Paragraph:
    """What the two axes mean."""
    return Paragraph(
        text="To the right lies what is large in the activations; upwards lies what the output "
        "can see, in nats. On the dashed line a latent is as visible, for its variance, as the "
        "typical null direction; far below it, a latent takes up variance that the rest of the "
        f"network past {audit.site} hardly notices.",
    )


def scatter(audit: Audit) -> Scatter:
    """Every latent, and the null directions in grey."""
    variance = audit.variance
    euclidean, fisher = variance.euclidean.numpy(), variance.fisher.numpy()
    null_euclidean, null_fisher = variance.null_euclidean.numpy(), variance.null_fisher.numpy()
    nulls = []
    for kind in dict.fromkeys(variance.null_kind):
        chosen = [i for i, k in enumerate(variance.null_kind) if k == kind]
        nulls.append(
            Series(
                key=kind,
                title=_KINDS.get(kind, kind),
                x=null_euclidean[chosen],
                y=null_fisher[chosen],
            )
        )
    # Logarithmic axes hold positive numbers only; the comparison also drops NaN.
    drawn = int(((euclidean > 0) & (fisher > 0)).sum())
    counted = ", ".join(f"{len(s.x):,} {s.title}" for s in nulls)
    left_out = (
        f" Not drawn: {audit.width - drawn:,} latents without a measured, positive variance."
        if drawn < audit.width
        else ""
    )
    return Scatter(
        title="Large, or seen: Euclidean against Fisher variance",
        x_title="Euclidean variance (activation units²)",
        y_title="Fisher variance (nats per token)",
        x=euclidean,
        y=fisher,
        nulls=tuple(nulls),
        ratio=_typical_ratio(null_euclidean, null_fisher),
        caption=f"{drawn:,} latents, coloured by verdict, above {counted} as nulls.{left_out} "
        "Dashed: the nulls' median ratio. Both axes are logarithmic. Euclidean: variance of the "
        "latent times its direction's squared norm. Fisher: the second-order KL divergence at the "
        f"output that this variance causes. {data_of(audit)}",
    )


def _typical_ratio(
    euclidean: Float[np.ndarray, " direction"], fisher: Float[np.ndarray, " direction"]
) -> float:
    measured = (euclidean > 0) & (fisher > 0)
    return float(np.median(fisher[measured] / euclidean[measured])) if measured.any() else math.nan
