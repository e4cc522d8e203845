"""Activations without a corpus: plain rows, some of them held out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.activations.corpus import Split
from modelassay.activations.matrix import RowMatrix
from modelassay.activations.source import ActivationSource
from modelassay.activations.statistics import Moments
from modelassay.activations.stream import ActivationStream, RowBlocks
from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.subjects.site import Site


@dataclass(frozen=True, kw_only=True, eq=False)
class ActivationRows(ActivationSource):
    """A matrix of activations of one site, each row an example of its own.

    For models that read no text, and for activations that were computed elsewhere: `fit` takes it
    as it takes a `Harvest`.
    """

    sites: tuple[Site, ...]
    """The one site."""
    subject_name: str
    subject_fingerprint: str
    matrix: RowMatrix
    heldout: Bool[Tensor, " row"]
    """Rows that no fit may see."""
    source: str = "rows"
    """Where the rows come from, for provenance."""
    _moments: list[Moments] = field(default_factory=list, init=False, repr=False)

    @staticmethod
    def of(
        activations: Float[Tensor, "row width"],
        site: Site,
        *,
        heldout: Bool[Tensor, " _"],
        subject_name: str = "",
        subject_fingerprint: str = "",
        source: str = "rows",
    ) -> "ActivationRows":
        """Rows in RAM.

        Raises:
            ShapeError: if the mask does not say of every row whether it is held out.
        """
        if heldout.shape != activations.shape[:1]:
            raise ShapeError(
                f"heldout must have one entry per row, {len(activations)}; got "
                f"{list(heldout.shape)}. Pass a Boolean mask over the rows."
            )
        return ActivationRows(
            sites=(site,),
            subject_name=subject_name,
            subject_fingerprint=subject_fingerprint,
            matrix=RowMatrix(parts=(activations,), mapped=False),
            heldout=heldout,
            source=source,
        )

    @property
    def origin(self) -> str:
        """Where the rows come from."""
        return self.source

    @property
    def n_tokens(self) -> int:
        """Rows of the matrix."""
        return len(self.matrix)

    def width(self, site: Site | str | None = None) -> int:
        """Columns of the matrix."""
        self.find(site)
        return self.matrix.width

    def select(self, split: Split) -> "ActivationRows":
        """Only the rows on one side of the split.

        Raises:
            TooFewTokensError: if there is none.
        """
        kept = (self.heldout == (split == "heldout")).nonzero()[:, 0]
        if len(kept) == 0:
            raise TooFewTokensError(
                f"There must be rows on the {split} side of the split; got none of "
                f"{self.n_tokens}. Hold out a part of the rows."
            )
        return replace(self, matrix=self.matrix.keep(kept), heldout=self.heldout[kept])

    def moments(self, site: Site | str | None = None) -> Moments:
        """Mean, covariance and norm; computed once."""
        self.find(site)
        if not self._moments:
            self._moments.append(Moments.of(self.matrix.tensor()))
        return self._moments[0]

    def joint_moments(self, sites: Sequence[Site], *, finite_only: bool = False) -> list[Moments]:
        """The moments of the one site."""
        if finite_only:
            return [self.matrix.moments(finite_only=True) for _ in sites]
        return [self.moments(site) for site in sites]

    def non_finite(self, site: Site) -> Int[Tensor, " bad"]:
        """Numbers of the rows with NaN or Inf."""
        self.find(site)
        return self.matrix.non_finite()

    def place_of(self, row: int) -> str:
        """Which of the rows that this was made of."""
        return f"row {row if self.matrix.kept is None else int(self.matrix.kept[row])}"

    def stream(
        self,
        site: Site | str | None = None,
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
    ) -> ActivationStream:
        """The rows in random order: see `ActivationStream`."""
        self.find(site)
        return ActivationStream(
            RowBlocks.of(self.matrix),
            batch_tokens=batch_tokens,
            generator=generator,
            epochs=epochs,
        )
