"""Synthetic activations of known features: trees, exclusion, Zipf's law, correlations.

Construction: feature i = 1 ... F, in order of frequency, has a unit direction d_i and

    p_i  = p_F + (p_1 - p_F) (i^-a - F^-a) / (1 - F^-a)         Zipf's law between two ends
    q_i  = p_i, compensated for its parent and its siblings     `Forest.compensated`
    g_i  = f_i . z + sqrt(1 - |f_i|²) e_i > -probit(q_i)        z, e normal, f_i = c N(0, 1_r)
    v_i  = max(0, m_i + s_i N(0, 1))                            m linear in i, s = |N(mean, std)|
    x    = b + sum_i v_i d_i

A child that is drawn fires only if its parent does, its value times ``v_parent / m_parent``; of the
drawn children of one parent a uniform draw keeps one. The latent Gaussians have the correlation
matrix ``f fᵀ + diag(1 - |f|²)``: one of rank r but for its diagonal.

Given z all features are independent, so that children need be drawn only where their parent fires.
That is the same distribution as drawing all F and striking out, at a fraction of the work.

Reference: Chanin & Garriga-Alonso 2026 (SynthSAEBench), version 2.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from modelassay.core.errors import ValueRangeError
from modelassay.core.provenance import hash_tensors
from modelassay.core.randomness import derived, generator
from modelassay.decompositions.codes import Codes, concatenate
from modelassay.decompositions.kernels import sparse_decode
from modelassay.decompositions.selection import pad_bags
from modelassay.testbeds.synthetic_directions import spread_directions
from modelassay.testbeds.synthetic_forest import Forest

_CHUNK_ENTRIES = 2**20  # features that are drawn at once, 4 MiB in float32: ours, measured
_LARGEST_SHARED = 0.99  # of a latent Gaussian's variance, in the factors: as in SAELens


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticSpec:
    """What kind of features there are. The defaults are those of SynthSAEBench-16k."""

    n_features: int = 16_384
    d: int = 768
    forest: Forest = Forest(roots=128, branching=4, depth=3)  # noqa: RUF009 frozen
    exponent: float = 0.5
    """a of Zipf's law."""
    frequencies: tuple[float, float] = (0.4, 5e-4)
    """p of the first and of the last feature."""
    means: tuple[float, float] = (5.0, 4.0)
    """Mean value of the first and of the last feature where they fire."""
    spread: tuple[float, float] = (0.5, 0.5)
    """Mean and standard deviation of the Gaussian of which a value's deviation is the modulus."""
    correlation: tuple[int, float] = (25, 0.1)
    """Rank r and scale c of the factors."""
    bias_norm: float = 0.5
    orthogonalisation_steps: int = 100
    """See `spread_directions`."""

    def __post_init__(self) -> None:
        first, last = self.frequencies
        if not 0 < last <= first < 1 or self.exponent <= 0:
            raise ValueRangeError(
                "frequencies must fall from below 1 to above 0, with exponent > 0; got "
                f"{first} to {last} and {self.exponent}. Use (0.4, 5e-4) and 0.5."
            )
        if self.n_features < max(2, self.forest.n_features) or self.d < 1:
            raise ValueRangeError(
                f"n_features must hold the {self.forest.n_features} features of the trees and at "
                f"least 2, and d at least 1; got {self.n_features} and {self.d}. Use fewer roots."
            )
        if min(self.means) <= 0 or min(self.spread) < 0 or min(self.correlation) < 0:
            raise ValueRangeError(
                "means must be above 0, spread and correlation at least 0; got "
                f"{self.means}, {self.spread} and {self.correlation}. Use 0 to switch one off."
            )

    @property
    def wanted_rates(self) -> Float64[Tensor, " feature"]:
        """Zipf's law: p."""
        first, last = self.frequencies
        ranks = torch.arange(1, self.n_features + 1, dtype=torch.float64)
        powers = ranks**-self.exponent
        return last + (first - last) * (powers - powers[-1]) / (powers[0] - powers[-1])


SYNTH_16K = SyntheticSpec()
"""SynthSAEBench-16k, version 2."""
SYNTH_REDUCED = SyntheticSpec(n_features=512, d=64, forest=Forest(roots=16, branching=4, depth=2))
"""The same for seconds on a CPU (ours): two thirds of the features in trees, as there, but one
level fewer, since with the few roots of deeper trees no feature at all fires on 19 % of samples
(here on 4 %, there on none)."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SyntheticModel:
    """Features that were drawn, and a sampler of activations made of them."""

    spec: SyntheticSpec
    directions: Float[Tensor, "feature d"]
    """Of unit length."""
    bias: Float[Tensor, " d"]
    means: Float[Tensor, " feature"]
    """Value where a feature fires, before it is scaled by its parent's."""
    deviations: Float[Tensor, " feature"]
    factors: Float[Tensor, "feature rank"]
    """f: what the latent Gaussians share."""
    given: Float64[Tensor, " feature"]
    """q: probability of being drawn, given the parent."""

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return self.directions.device

    @property
    def expected_rates(self) -> Float64[Tensor, " feature"]:
        """How often each feature fires if there were no correlations; their sum is the L0."""
        positive = torch.special.ndtr(self.means.double() / self.deviations.double())
        return self.spec.forest.rates((self.given * positive).cpu())

    @property
    def correlations(self) -> Float[Tensor, "feature feature"]:
        """Of the latent Gaussians: ``f fᵀ`` with ones on the diagonal."""
        return (self.factors @ self.factors.T).fill_diagonal_(1)

    def to(self, device: str | torch.device) -> "SyntheticModel":
        """The same features on another device."""
        tensors = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **tensors)

    def fingerprint(self) -> str:
        """Hash of all that was drawn."""
        return hash_tensors({name: tensor.cpu() for name, tensor in self._tensors().items()})

    def codes(self, samples: int, draw: torch.Generator) -> Codes:
        """Values of the features on fresh samples.

        Args:
            samples: how many.
            draw: a generator on any device; one number of it seeds the draws.
        """
        return concatenate(list(self._chunks(samples, draw)) or [self._empty()])

    def activations(self, codes: Codes) -> Float[Tensor, "sample d"]:
        """What the features' values add up to."""
        return sparse_decode(codes.values, codes.indices, self.directions) + self.bias

    def rows(self, samples: int, draw: torch.Generator) -> Float[Tensor, "sample d"]:
        """Activations of fresh samples, for which the features' values are not kept."""
        out = self.directions.new_empty(samples, self.spec.d)
        start = 0
        for codes in self._chunks(samples, draw):
            out[start : start + codes.n_tokens] = self.activations(codes)
            start += codes.n_tokens
        return out

    def _tensors(self) -> dict[str, Tensor]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def _empty(self) -> Codes:
        none = self.means.new_zeros(0, 0)
        return Codes(indices=none.long(), values=none, width=self.spec.n_features)

    def _chunks(self, samples: int, draw: torch.Generator) -> Iterator[Codes]:
        # Through a seed, so that a generator of the CPU serves a model on a GPU.
        seed = int(torch.randint(2**62, (), generator=draw, device=draw.device))
        sampler = _Sampler.of(self, generator(seed, self.device))
        step = max(1, _CHUNK_ENTRIES // max(1, len(sampler.free)))
        for start in range(0, samples, step):
            yield sampler.draw(min(step, samples - start))


def synthetic_model(
    spec: SyntheticSpec, seed: int, *, device: str | torch.device = "cpu"
) -> SyntheticModel:
    """Draw the features; the same on every device."""

    def normal(purpose: str, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=derived(seed, "synthetic", purpose))

    rank, scale = spec.correlation
    factors = scale * normal("factors", spec.n_features, rank)
    largest = float(factors.square().sum(1).max()) if rank else 0.0
    if largest >= 1:
        factors *= (_LARGEST_SHARED / largest) ** 0.5
    centre, width = spec.spread
    bias = normal("bias", spec.d)
    model = SyntheticModel(
        spec=spec,
        directions=spread_directions(
            spec.n_features,
            spec.d,
            steps=spec.orthogonalisation_steps,
            generator=derived(seed, "synthetic", "directions"),
        ),
        bias=spec.bias_norm * bias / bias.norm(),
        means=torch.linspace(*spec.means, spec.n_features),
        deviations=(centre + width * normal("deviations", spec.n_features)).abs(),
        factors=factors,
        given=spec.forest.compensated(spec.wanted_rates),
    )
    return model.to(device)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sampler:
    """Draws chunks of samples, level by level."""

    model: SyntheticModel
    generator: torch.Generator
    free: Int[Tensor, " free"]
    """Roots and features outside the trees: drawn for every sample."""
    base: Float[Tensor, " feature"]
    slopes: Float[Tensor, "feature rank"]
    """A feature is drawn where its own Gaussian exceeds ``base + slopes . z``."""

    @staticmethod
    def of(model: SyntheticModel, draw: torch.Generator) -> "_Sampler":
        forest, n_features = model.spec.forest, model.spec.n_features
        own = (1 - model.factors.double().square().sum(1)).sqrt()
        cuts = -torch.special.ndtri(model.given)
        outside = torch.arange(forest.n_features, n_features)
        return _Sampler(
            model=model,
            generator=draw,
            free=torch.cat([torch.arange(forest.roots), outside]).to(model.device),
            base=(cuts / own).float(),
            slopes=(-model.factors / own[:, None]).float(),
        )

    def draw(self, samples: int) -> Codes:
        """Values of the features on fresh samples."""
        model, forest = self.model, self.model.spec.forest
        shared = self._normal(samples, model.factors.shape[1])
        cuts = torch.addmm(self.base[self.free], shared, self.slopes[self.free].T)
        rows, places = (self._normal(*cuts.shape) > cuts).nonzero(as_tuple=True)
        features = self.free[places]
        values = self._values(features)
        found = [(rows, features, values)]
        fires = (values > 0) & (features < forest.roots)
        for above, level in zip(forest.levels, forest.levels[1:], strict=False):
            rows, features, values = rows[fires], features[fires], values[fires]
            rows, features, values = self._children(
                rows, features, values, level.start - above.start * forest.branching, shared
            )
            found.append((rows, features, values))
            fires = values > 0
        return self._gathered(found, samples)

    def _children(
        self, rows: Tensor, parents: Tensor, values: Tensor, first: int, shared: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Children that fire, of parents that do; `first` is where feature 0's would begin."""
        forest = self.model.spec.forest
        siblings = torch.arange(forest.branching, device=parents.device)
        features = first + parents[:, None] * forest.branching + siblings
        slopes = self.slopes[features]  # [parent, sibling, rank]
        cuts = self.base[features] + (slopes @ shared[rows][..., None])[..., 0]
        own = self._values(features)
        drawn = (self._normal(*cuts.shape) > cuts) & (own > 0)
        if forest.exclusive:
            chance = torch.rand(drawn.shape, generator=self.generator, device=drawn.device)
            winner = torch.where(drawn, chance, -1.0).argmax(1, keepdim=True)
            drawn &= siblings == winner
        if forest.scaled:
            own = own * (values / self.model.means[parents])[:, None]
        parent, _ = drawn.nonzero(as_tuple=True)
        return rows[parent], features[drawn], own[drawn]

    def _values(self, features: Tensor) -> Tensor:
        """Values of features that were drawn, before any scaling."""
        noise = self._normal(*features.shape) * self.model.deviations[features]
        return (self.model.means[features] + noise).clamp(min=0)

    def _gathered(self, found: list[tuple[Tensor, Tensor, Tensor]], samples: int) -> Codes:
        rows, features, values = (torch.cat(parts) for parts in zip(*found, strict=True))
        kept = values > 0
        rows, features, values = rows[kept], features[kept], values[kept]
        rows, order = rows.sort(stable=True)
        counts = torch.bincount(rows, minlength=samples)
        values, indices = pad_bags(values[order], features[order], counts.cumsum(0) - counts)
        return Codes(indices=indices, values=values, width=self.model.spec.n_features)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.model.device)
