"""How a run sees the sites whose dictionaries it trains on one pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.source import ActivationSource
from modelassay.activations.statistics import Moments
from modelassay.core.errors import NonFiniteError
from modelassay.core.provenance import hash_tensors
from modelassay.core.randomness import derived
from modelassay.fitting.bad_batches import require_finite
from modelassay.fitting.learner import Learner
from modelassay.fitting.normalisation import input_scale
from modelassay.fitting.options import TrainingOptions
from modelassay.fitting.whitening import Whitening
from modelassay.subjects.site import Site


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SiteView:
    """A site's activations in the rows of a joint stream, and how they are normalised."""

    site: Site
    columns: slice
    """Of a row, that this site has."""
    moments: Moments
    """Of the activations as they are."""
    scale: float
    """Multiplies every activation; 1 where they are whitened."""
    whitening: Whitening | None
    source: ActivationSource
    """The fit side."""

    @property
    def normalisation(self) -> float | Whitening:
        """The scale, or the whitening in its place."""
        return self.whitening or self.scale

    @property
    def seen(self) -> Moments:
        """The moments of what learners see, but for the scale."""
        return self.whitening.moments(self.moments) if self.whitening else self.moments

    def fingerprint(self) -> str:
        """Hash of the activations' mean and covariance."""
        return hash_tensors({"mean": self.moments.mean, "covariance": self.moments.covariance})

    def sample(self, tokens: int, *, seed: int) -> Float[Tensor, "token width"]:
        """Finite activations, drawn at random, as learners see them; fewer if there are fewer."""
        tokens = min(tokens, self.source.n_tokens)
        batch_tokens = min(1024, tokens)
        stream = self.source.stream(
            self.site, batch_tokens=batch_tokens, generator=derived(seed, "sample"), epochs=1
        )
        rows = torch.cat([next(stream) for _ in range(tokens // batch_tokens)]).float()
        x = self.scale * rows[rows.isfinite().all(1)]
        return self.whitening.transform()(x) if self.whitening else x

    def group(self, learners: Sequence[Learner], device: torch.device) -> "SiteGroup":
        """This site's share of a run.

        Args:
            learners: of this site.
            device: where they train.
        """
        return SiteGroup(
            site=str(self.site),
            learners=tuple(learners),
            columns=self.columns,
            scale=self.scale,
            transform=self.whitening.transform(device) if self.whitening else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SiteGroup:
    """The dictionaries of one site, which see the same of each batch."""

    site: str
    """In words, for errors."""
    learners: tuple[Learner, ...]
    """They do not know each other."""
    columns: slice
    """Of a row of the stream, that this site has."""
    scale: float = 1.0
    """Multiplies every activation."""
    transform: Callable[[Tensor], Tensor] | None = None
    """Applied to the scaled activations, if any."""

    def view(self, rows: Float[Tensor, "token joint"]) -> Float[Tensor, "token width"]:
        """What this site's learners see of a batch."""
        x = self.scale * rows[:, self.columns]
        return x if self.transform is None else self.transform(x)


def columns_of(source: ActivationSource, sites: Sequence[Site]) -> dict[Site, slice]:
    """Which columns of the rows of a joint stream each site has."""
    found: dict[Site, slice] = {}
    start = 0
    for site in sites:
        width = source.width(site)
        found[site] = slice(start, start + width)
        start += width
    return found


def views_of(
    source: ActivationSource, sites: Sequence[Site], options: TrainingOptions
) -> list[SiteView]:
    """How a run sees some sites of its fit side.

    Raises:
        NonFiniteError: if activations hold NaN or Inf and a run must stop at them, or all do.
        ValueRangeError: if all activations of a site are zero.
    """
    skipping = options.bad_batches == "skip"
    joint = source.joint_moments(sites, finite_only=skipping)
    return [
        _view(source, site, columns, moments, options)
        for (site, columns), moments in zip(columns_of(source, sites).items(), joint, strict=True)
    ]


def _view(
    source: ActivationSource,
    site: Site,
    columns: slice,
    moments: Moments,
    options: TrainingOptions,
) -> SiteView:
    if not torch.isfinite(moments.mean).all():
        require_finite(source, site)
    if moments.count == 0:
        raise NonFiniteError(
            f"Some activations must be finite; got NaN or Inf in every token at {str(site)!r}. "
            "Check the model's numbers."
        )
    whitening = Whitening.of(moments) if options.normalisation == "whitening" else None
    return SiteView(
        site=site,
        columns=columns,
        moments=moments,
        scale=1.0 if whitening else input_scale(moments),
        whitening=whitening,
        source=source,
    )
