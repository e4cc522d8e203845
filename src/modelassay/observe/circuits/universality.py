"""Units of two networks matched by what they respond to, over the same images and positions.

Matching the best of many units finds something in any two networks. What is found therefore stands
beside three nulls: the same positions of another image, the other network's space turned at random
(which keeps everything but the choice of units), and, through the caller, an untrained network.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import scipy.optimize
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput, check_images

_KEPT = 0.99  # of the variance: SVCCA's truncation (Raghu et al. 2017)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """Second moments of two sets of channels over the same places, centred."""

    first: Float[Tensor, "a a"]
    second: Float[Tensor, "b b"]
    cross: Float[Tensor, "a b"]
    permuted: Float[Tensor, "a b"]
    """The first on each image with the second on another image at the same position."""
    n_places: int
    n_images: int

    def correlation(self) -> Float[Tensor, "a b"]:
        """Of each channel of the first with each of the second; NaN where one never varies."""
        return _scaled(self.cross, self.first.diagonal(), self.second.diagonal())


def moments(
    first: tuple[nn.Module, str],
    second: tuple[nn.Module, str],
    batches: Iterable[Float[Tensor, "n 3 h w"]],
    *,
    image_inputs: tuple[ImageInput, ImageInput] = (IMAGENET, IMAGENET),
    n_images: int | None = None,
    progress: Progress = SILENT,
) -> Moments:
    """Run both networks over batches of images, and keep sums only.

    Args:
        first: a module and the path of a layer in it.
        second: the other. If its map has another size, it is averaged or interpolated to the
            first's.
        batches: images in 0 … 1, two or more at a time, of one size within a batch. Each image's
            partner for the null is the one before it in its batch.
        image_inputs: what either network reads.
        n_images: how many there will be, for the progress bar.
        progress: where to report.

    Raises:
        TooFewTokensError: if a batch has fewer than 2 images, or there is none.
        ShapeError, ValueRangeError: if images are not RGB in 0 … 1.
    """
    sums: list[Tensor] = []
    places = images = 0
    with progress.task("compare responses", total=n_images or 0, unit="image") as task:
        for batch in batches:
            check_images(batch)
            if len(batch) < 2:
                raise TooFewTokensError(
                    f"A batch must have 2 or more images; got {len(batch)}: the null pairs each "
                    "with another. Pass larger batches, and leave a single last image out."
                )
            one, two = _both(first, second, batch, image_inputs)
            other = two.roll(1, 0)
            a, b, c = (x.transpose(0, 1).flatten(1).double() for x in (one, two, other))
            parts = [a.sum(1), b.sum(1), a @ a.T, b @ b.T, a @ b.T, a @ c.T]
            sums = [x + y for x, y in zip(sums, parts, strict=True)] if sums else parts
            places, images = places + a.shape[1], images + len(batch)
            task.advance(len(batch))
    if not sums:
        raise TooFewTokensError("There must be a batch of images; got none. Pass more.")
    mean_a, mean_b = sums[0] / places, sums[1] / places
    return Moments(
        first=sums[2] / places - mean_a.outer(mean_a),
        second=sums[3] / places - mean_b.outer(mean_b),
        cross=sums[4] / places - mean_a.outer(mean_b),
        permuted=sums[5] / places - mean_a.outer(mean_b),
        n_places=places,
        n_images=images,
    )


def _both(
    first: tuple[nn.Module, str],
    second: tuple[nn.Module, str],
    batch: Tensor,
    image_inputs: tuple[ImageInput, ImageInput],
) -> tuple[Tensor, Tensor]:
    maps: list[Tensor] = []
    for (module, layer), image_input in zip((first, second), image_inputs, strict=True):
        device = next(module.parameters(), torch.empty(0)).device
        with torch.no_grad():
            found = feature_maps(module, [layer], image_input(batch.to(device)))[layer]
        maps.append(found.cpu())
    one, two = maps
    if one.shape[2:] != two.shape[2:]:
        if 1 in (*one.shape[2:], *two.shape[2:]):
            raise ShapeError(
                f"Maps must both have positions or both have none; got {list(one.shape[2:])} and "
                f"{list(two.shape[2:])}. Name layers of the same kind."
            )
        two = F.interpolate(
            two, one.shape[2:], mode="bilinear", antialias=True, align_corners=False
        )
    return one, two


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Matching:
    """Each channel's counterpart, and what chance gives; NaN and -1 for one that never varies."""

    best: Float[Tensor, " a"]
    """Highest correlation with any channel of the other network."""
    partner: Int[Tensor, " a"]
    one_to_one: Float[Tensor, " a"]
    """Correlation under the assignment with the largest sum; NaN for those without a partner."""
    assigned: Int[Tensor, " a"]
    null_permuted: Float[Tensor, " a"]
    """Best correlation with the other network's channels on other images."""
    null_rotated: Float[Tensor, " a"]
    """Best correlation with directions of the other network's turned space."""
    cka: float
    """Linear centred kernel alignment of the two layers (Kornblith et al. 2019)."""
    svcca: float
    """Mean canonical correlation between the principal directions that hold 99 % of each layer's
    variance (Raghu et al. 2017)."""

    @property
    def shared(self) -> float:
        """Share of the varying channels above the 95th percentile of both nulls."""
        known = self.best[self.best.isfinite()]
        if not len(known):
            return float("nan")
        nulls = torch.cat([x[x.isfinite()].quantile(0.95)[None] for x in self._nulls])
        return float((known > nulls.max()).float().mean())

    @property
    def _nulls(self) -> tuple[Tensor, Tensor]:
        return self.null_permuted, self.null_rotated


def match(found: Moments, *, seed: int = 0) -> Matching:
    """Best and one-to-one partners from second moments.

    The assignment maximises the sum of the correlations (Kuhn 1955); a random rotation turns the
    second network's centred space, with every rotation equally likely.

    Raises:
        TooFewTokensError: if no channel of either network varies.
    """
    correlation = found.correlation()
    alive = correlation.isfinite()
    if not bool(alive.any()):
        raise TooFewTokensError(
            "Some channel of each network must vary over the images; got none. Both layers are "
            "dead on them: pass other images or layers."
        )
    best, partner = correlation.nan_to_num(-2.0).max(1)
    dead = ~alive.any(1)
    rows, columns = scipy.optimize.linear_sum_assignment(
        correlation.nan_to_num(-2.0).numpy(), maximize=True
    )
    assigned = torch.full_like(partner, -1)
    assigned[torch.from_numpy(rows)] = torch.from_numpy(columns)
    paired = correlation.gather(1, assigned.clamp_min(0)[:, None])[:, 0]
    assigned = assigned.masked_fill(paired.isnan(), -1)
    variance = found.first.diagonal()
    turn = _rotation(found.second.shape[0], derived(seed, "rotation"))
    turned = _scaled(found.cross @ turn.T, variance, (turn @ found.second @ turn.T).diagonal())
    permuted = _scaled(found.permuted, variance, found.second.diagonal())
    return Matching(
        best=best.masked_fill(dead, torch.nan).float(),
        partner=partner.masked_fill(dead, -1),
        one_to_one=paired.masked_fill(assigned < 0, torch.nan).float(),
        assigned=assigned,
        null_permuted=_best(permuted),
        null_rotated=_best(turned),
        cka=_cka(found),
        svcca=_svcca(found),
    )


def _best(correlation: Tensor) -> Tensor:
    found = correlation.nan_to_num(-2.0).amax(1)
    return found.masked_fill(found < -1.5, torch.nan).float()


def _scaled(cross: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Correlations; NaN where a variance is 0 up to rounding."""
    deviations = [x.clamp_min(0).where(x > 1e-12 * x.max(), 0.0).sqrt() for x in (first, second)]
    scale = deviations[0].outer(deviations[1])
    return (cross / scale).masked_fill(scale == 0, torch.nan)


def _rotation(width: int, generator: torch.Generator) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _cka(found: Moments) -> float:
    scale = found.first.norm() * found.second.norm()
    return float(found.cross.square().sum() / scale)


def _svcca(found: Moments) -> float:
    whitened: list[Tensor] = []
    for covariance in (found.first, found.second):
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        share = values.cumsum(0) / values.sum()
        kept = int((share < _KEPT).sum()) + 1
        whitened.append(vectors[:, :kept] / values[:kept].sqrt())
    return float(torch.linalg.svdvals(whitened[0].T @ found.cross @ whitened[1]).clamp(0, 1).mean())
