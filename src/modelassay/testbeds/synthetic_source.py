"""Synthetic activations as what `fit` takes: drawn while they are used, or kept as plain rows."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import Split
from modelassay.activations.rows import ActivationRows
from modelassay.activations.source import ActivationSource
from modelassay.activations.statistics import Moments
from modelassay.activations.stream import ActivationStream, Blocks
from modelassay.core.errors import TooFewTokensError
from modelassay.core.randomness import derived
from modelassay.subjects.site import Site
from modelassay.testbeds.synthetic import SyntheticModel

SITE = Site(role="module", path="synthetic")
"""Where synthetic activations stand: the output of a model that is nothing but them."""
_BLOCK_ROWS = 1024  # samples that are drawn together, as SynthSAEBench's batch
_BUFFER_ROWS = 8192  # ours: 24 MiB at d = 768
_MOMENT_ROWS = 2**16  # ours: the mean's error is then 1/256 of a standard deviation


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticActivations(ActivationSource):
    """Samples of a synthetic model that are never stored: hundreds of millions need no memory.

    Every epoch draws anew, so that no sample comes twice however long a fit takes; a stream that
    is resumed goes on with the very samples that it would have had. The two sides of the split
    are independent draws.
    """

    model: SyntheticModel
    subject_fingerprint: str
    n_fit: int
    """Samples of an epoch on the fit side."""
    n_heldout: int
    split: Split | None = None
    """The side that this is; None for both."""
    subject_name: str = "synthetic"
    sites: tuple[Site, ...] = (SITE,)
    _moments: list[Moments] = field(default_factory=list, init=False, repr=False)

    @staticmethod
    def of(
        model: SyntheticModel, *, n_fit: int = 200_000_000, n_heldout: int = 500_000
    ) -> "SyntheticActivations":
        """A source of a model's samples; the sizes are those of SynthSAEBench.

        Raises:
            TooFewTokensError: if a side has no sample.
        """
        if min(n_fit, n_heldout) < 1:
            raise TooFewTokensError(
                f"Both sides must have samples; got n_fit={n_fit} and n_heldout={n_heldout}. "
                "They cost nothing: draw some on each side."
            )
        return SyntheticActivations(
            model=model,
            subject_fingerprint=model.fingerprint(),
            n_fit=n_fit,
            n_heldout=n_heldout,
        )

    @property
    def n_tokens(self) -> int:
        """Samples of an epoch."""
        sides = {"fit": self.n_fit, "heldout": self.n_heldout}
        return sum(sides.values()) if self.split is None else sides[self.split]

    @property
    def origin(self) -> str:
        """Which features there are."""
        spec = self.model.spec
        return f"synthetic: {spec.n_features} features in {spec.d} dimensions"

    def width(self, site: Site | str | None = None) -> int:
        """d."""
        self.find(site)
        return self.model.spec.d

    def select(self, split: Split) -> "SyntheticActivations":
        """One side of the split: draws of its own."""
        return replace(self, split=split)

    def moments(self, site: Site | str | None = None) -> Moments:
        """Mean, covariance and norm of 65,536 samples, the same for both sides."""
        self.find(site)
        if not self._moments:
            total = Moments.zero(self.model.spec.d)
            draw = derived(0, "synthetic", "moments")
            for _ in range(_MOMENT_ROWS // _BUFFER_ROWS):
                total += Moments.of(self.model.rows(_BUFFER_ROWS, draw))
            self._moments.append(total)
        return self._moments[0]

    def stream(
        self,
        site: Site | str | None = None,
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
    ) -> ActivationStream:
        """Fresh samples, batch by batch, on the model's device."""
        self.find(site)
        return ActivationStream(
            _SampleBlocks(model=self.model, n_samples=self.n_tokens, side=self.split or "both"),
            batch_tokens=batch_tokens,
            generator=generator,
            epochs=epochs,
        )


def synthetic_rows(model: SyntheticModel, samples: int, *, seed: int) -> ActivationRows:
    """Samples in memory as plain rows, every fifth of them held out."""
    rows = model.rows(samples, derived(seed, "synthetic", "rows")).cpu()
    return ActivationRows.of(
        rows,
        SITE,
        heldout=torch.arange(samples) % 5 == 0,
        subject_name="synthetic",
        subject_fingerprint=model.fingerprint(),
        source=f"synthetic rows, seed {seed}",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _SampleBlocks(Blocks):
    """Blocks that are drawn when they are loaded."""

    model: SyntheticModel
    n_samples: int
    side: str
    buffer_tokens = _BUFFER_ROWS
    ahead = True

    @property
    def sizes(self) -> Int[Tensor, " block"]:
        """Samples of each block."""
        starts = torch.arange(0, self.n_samples, _BLOCK_ROWS)
        return (self.n_samples - starts).clamp(max=_BLOCK_ROWS)

    def load(
        self, blocks: Int[Tensor, " picked"], generator: torch.Generator
    ) -> Float[Tensor, "token width"]:
        """As many samples as the blocks have: independent, so in no order."""
        # The side is mixed in, so that equal seeds do not draw held-out samples into a fit.
        seed = int(torch.randint(2**62, (), generator=generator))
        draw = derived(seed, "synthetic", self.side)
        return self.model.rows(int(self.sizes[blocks].sum()), draw)
