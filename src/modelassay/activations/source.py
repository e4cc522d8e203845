"""What fitting needs of activations, wherever they come from."""

from abc import ABC, abstractmethod

import torch

from modelassay.activations.corpus import Split
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
