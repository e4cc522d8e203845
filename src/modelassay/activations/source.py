"""What fitting needs of activations, wherever they come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from modelassay.activations.corpus import Split, TokenizedCorpus
from modelassay.activations.statistics import Moments
from modelassay.activations.stream import ActivationStream
from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.subjects.site import Site


class ActivationSource(ABC):
    """Activations of some sites on a corpus: harvested, or made while they are used."""

    sites: tuple[Site, ...]
    subject_name: str
    subject_fingerprint: str
    """Hash of the weights of the model that the activations come from."""

    @property
    @abstractmethod
    def n_tokens(self) -> int:
        """Rows of the activation matrices."""

    @property
    @abstractmethod
    def origin(self) -> str:
        """What the model was run on, for provenance."""

    @abstractmethod
    def width(self, site: Site | str | None = None) -> int:
        """Columns of a site's activation matrix."""

    @abstractmethod
    def select(self, split: Split) -> "ActivationSource":
        """Only the documents on one side of the split."""

    @abstractmethod
    def moments(self, site: Site | str | None = None) -> Moments:
        """Mean, covariance and norm of a site's activations."""

    @abstractmethod
    def stream(
        self,
        site: Site | str | None = None,
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
    ) -> ActivationStream:
        """The site's activations in random order."""

    def joint_stream(
        self,
        sites: Sequence[Site],
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
        refuse_non_finite: bool = True,
    ) -> ActivationStream:
        """Activations of several sites in one random order, side by side in each row.

        The order is that of each site's own `stream`. Where a model makes the activations, it runs
        once for all sites.

        Args:
            sites: in the order of the columns.
            batch_tokens: rows of a batch.
            generator: of the order.
            epochs: passes over the data; None for no end.
            refuse_non_finite: whether a source that looks for NaN and Inf itself refuses them.

        Raises:
            ValueRangeError: if the source has but one site, and several are asked for.
        """
        del refuse_non_finite  # plain rows are handed out as they are
        if len(sites) > 1:
            raise ValueRangeError(
                f"This source has one site at a time; got {', '.join(map(str, sites))}. "
                "Harvest them together."
            )
        return self.stream(sites[0], batch_tokens=batch_tokens, generator=generator, epochs=epochs)

    def joint_moments(self, sites: Sequence[Site], *, finite_only: bool = False) -> list[Moments]:
        """The moments of several sites. Where a model makes the activations, it runs once.

        Args:
            sites: of which.
            finite_only: leave out rows with NaN or Inf, site by site.
        """
        del finite_only  # for sources that may hold any
        return [self.moments(site) for site in sites]

    def non_finite(self, site: Site) -> Int[Tensor, " bad"]:
        """Numbers of the rows with NaN or Inf at a site, as far as the source keeps any."""
        del site
        return torch.zeros(0, dtype=torch.int64)

    def place_of(self, row: int) -> str:
        """Where a row comes from, in words, for errors."""
        return f"row {row}"

    def find_all(self, sites: Site | str | Sequence[Site | str] | None) -> tuple[Site, ...]:
        """Several of `sites`; one, or None for the only one, gives one.

        Raises:
            UnknownNameError: if a site is not among them; near misses are suggested.
            ValueRangeError: if none is given, None where there are several, or one twice.
        """
        if sites is None or isinstance(sites, Site | str):
            return (self.find(sites),)
        found = tuple(map(self.find, sites))
        if not found or len(set(found)) < len(found):
            raise ValueRangeError(
                "Sites must be one or more, each named once; got "
                f"{', '.join(map(str, found)) or 'none'}. "
                f"Choose from: {', '.join(map(str, self.sites))}."
            )
        return found

    def find(self, site: Site | str | None) -> Site:
        """One of `sites`; None stands for the only one.

        Raises:
            UnknownNameError: if the site is not among them; near misses are suggested.
            ValueRangeError: if None is given and there are several.
        """
        if site is None:
            if len(self.sites) == 1:
                return self.sites[0]
            raise ValueRangeError(
                "The site must be named where several were harvested; "
                f"got None for {', '.join(map(str, self.sites))}. Pass one of them."
            )
        for known in self.sites:
            if str(known) == str(site):
                return known
        raise UnknownNameError("Harvested site", str(site), map(str, self.sites))


def place_in(contexts: TokenizedCorpus, row: int) -> str:
    """Which token a row of the activation matrices belongs to, in words."""
    context, position = contexts.measured.nonzero()[row].tolist()
    document = contexts.corpus.documents[int(contexts.document[context])]
    return f"token {position} of context {context} (document {document.name!r})"
