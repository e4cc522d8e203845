"""What is carried over from one run to another: a site, a head, latents, or what they leave out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modelassay.core.errors import ProvenanceError, ShapeError, ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.subjects.site import ROLES, Site
from modelassay.subjects.subject import Subject


@runtime_checkable
class Part(Protocol):
    """Something that an activation has and that another activation's may take the place of."""

    @property
    def site(self) -> Site:
        """Where the activation stands."""
        ...

    @property
    def name(self) -> str:
        """For readers."""
        ...

    def check(self, subject: Subject) -> None:
        """Refuse a model that does not have it."""
        ...

    def replaced(
        self, target: Float[Tensor, "pair ..."], source: Float[Tensor, "pair ..."]
    ) -> Float[Tensor, "pair ..."]:
        """The target's activation with this part as in the source's."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """All of a site: ``source``."""

    site: Site

    @property
    def name(self) -> str:
        """The site."""
        return str(self.site)

    def check(self, subject: Subject) -> None:
        """Refuse a model without the site.

        Raises:
            UnknownNameError: no such site.
            UnsupportedModelError: the model's blocks do not have the role.
        """
        subject.resolve(self.site)

    def replaced(
        self, target: Float[Tensor, "pair ..."], source: Float[Tensor, "pair ..."]
    ) -> Float[Tensor, "pair ..."]:
        """The source's activation."""
        del target
        return source


@dataclass(frozen=True, slots=True)
class Head:
    """One head of `head_out` or `attn_pattern`."""

    site: Site
    head: int

    @property
    def name(self) -> str:
        """Layer and head."""
        kind = " pattern" if self.site.role == "attn_pattern" else ""
        return f"L{self.site.layer}H{self.head}{kind}"

    def check(self, subject: Subject) -> None:
        """Refuse a site without heads, and a head that the model does not have.

        Raises:
            ValueRangeError: the site has no heads, or not this one.
        """
        subject.resolve(self.site)
        if self.site.role not in ("head_out", "attn_pattern"):
            raise ValueRangeError(
                f"A head must be one of head_out or attn_pattern; got {self.site}. "
                f"Write 'head_out.{max(0, self.site.layer)}'."
            )
        if not 0 <= self.head < subject.n_heads:
            raise ValueRangeError(
                f"A head must be from 0 to {subject.n_heads - 1}; got {self.head} at {self.site}. "
                "Choose one that the model has."
            )

    def replaced(
        self, target: Float[Tensor, "pair ..."], source: Float[Tensor, "pair ..."]
    ) -> Float[Tensor, "pair ..."]:
        """The target's heads, but this one from the source."""
        axis = 1 if self.site.role == "attn_pattern" else 2
        chosen = torch.arange(target.shape[axis], device=target.device) == self.head
        shape = [1] * target.ndim
        shape[axis] = -1
        return torch.where(chosen.view(shape), source, target)


@dataclass(frozen=True, slots=True)
class Latents:
    """Some latents of a dictionary, with the target's error and other latents kept.

    ``x' = x + sum_i (z_i(source) - z_i(x)) d_i``
    """

    site: Site
    dictionary: Decomposition
    latents: tuple[int, ...]

    @property
    def name(self) -> str:
        """Their numbers."""
        shown = ", ".join(map(str, self.latents[:4])) + (", …" if len(self.latents) > 4 else "")
        return f"{self.site} latent{'s' if len(self.latents) != 1 else ''} {shown}"

    def check(self, subject: Subject) -> None:
        """Refuse a dictionary of another model or site, and latents that it does not have."""
        check_dictionary(subject, self.site, self.dictionary, self.latents)

    def replaced(
        self, target: Float[Tensor, "pair ..."], source: Float[Tensor, "pair ..."]
    ) -> Float[Tensor, "pair ..."]:
        """The target with these latents' contributions as in the source."""
        rows, latents = _rows(target), list(self.latents)
        change = _values(self.dictionary, source, latents) - _values(
            self.dictionary, target, latents
        )
        moved = rows + change.to(rows) @ self.dictionary.directions[latents].to(rows)
        return moved.view(target.shape)


@dataclass(frozen=True, slots=True)
class Residue:
    """What a dictionary leaves out: the difference between an activation and its reconstruction.

    With all latents it makes up the whole site: ``x = decode(encode(x)) + residue(x)``.
    """

    site: Site
    dictionary: Decomposition

    @property
    def name(self) -> str:
        """The site's error."""
        return f"{self.site} error"

    def check(self, subject: Subject) -> None:
        """Refuse a dictionary of another model or site."""
        check_dictionary(subject, self.site, self.dictionary, ())

    def replaced(
        self, target: Float[Tensor, "pair ..."], source: Float[Tensor, "pair ..."]
    ) -> Float[Tensor, "pair ..."]:
        """The target's reconstruction with the source's error."""
        ours, theirs = _rows(target), _rows(source)
        kept = theirs - self.dictionary(theirs).to(ours) + self.dictionary(ours).to(ours)
        return kept.view(target.shape)


def check_dictionary(
    subject: Subject, site: Site, dictionary: Decomposition, latents: Sequence[int]
) -> None:
    """Refuse a dictionary that does not belong to a site of a model.

    Raises:
        ProvenanceError: it was fitted at another site, on another model, or is a transcoder.
        ShapeError: it is of another width than the site.
        ValueRangeError: it does not have one of the latents.
    """
    site = subject.resolve(site)
    for verb, known in (("read", dictionary.reads), ("write", dictionary.writes)):
        if known is not None and known != site:
            raise ProvenanceError(
                f"A dictionary must {verb} the site that it is used at, {site}; got "
                f"{dictionary.name!r}, which {verb}s {known}. Use it there."
            )
    fitted_on = dictionary.subject_fingerprint
    if fitted_on is not None and fitted_on != subject.fingerprint():
        raise ProvenanceError(
            f"A dictionary must have been fitted on this model ({subject.fingerprint()}); got "
            f"{dictionary.name!r}, fitted on {fitted_on}. Load the model that it belongs to."
        )
    width = subject.width(site) * (subject.n_heads if site.role == "head_out" else 1)
    if not dictionary.d_in == dictionary.d_out == width:
        raise ShapeError(
            f"A dictionary at {site} must read and write {width} components; got "
            f"{dictionary.d_in} and {dictionary.d_out}. Use a dictionary of this site."
        )
    beyond = [latent for latent in latents if not 0 <= latent < dictionary.width]
    if beyond:
        raise ValueRangeError(
            f"Latents must be from 0 to {dictionary.width - 1}; got {beyond[0]}. "
            f"Choose latents of {dictionary.name!r}."
        )


def masked(site: Site, mask: Bool[Tensor, "pair token"], inside: Tensor, outside: Tensor) -> Tensor:
    """One activation where the mask is True, another elsewhere; of attention, query positions.

    Raises:
        ShapeError: the site does not hold one entry for each token.
    """
    axis = 2 if site.role == "attn_pattern" else 1
    if outside.ndim <= axis or outside.shape[axis] != mask.shape[1]:
        raise ShapeError(
            f"A site must hold one entry for each of the {mask.shape[1]} tokens; got "
            f"{list(outside.shape)} at {site}. Choose a site [batch token …]."
        )
    shape = [len(mask), *[1] * (outside.ndim - 1)]
    shape[axis] = mask.shape[1]
    return torch.where(mask.view(shape).to(outside.device), inside, outside)


def heads_of(subject: Subject) -> tuple[Head, ...]:
    """Every head of a model, by layer."""
    return tuple(
        Head(Site("head_out", layer), head)
        for layer in range(subject.n_layers)
        for head in range(subject.n_heads)
    )


def sites_of(subject: Subject, role: str) -> tuple[Whole, ...]:
    """One role in every layer.

    Raises:
        UnknownNameError: there is no such role.
        UnsupportedModelError: the model's blocks do not have it.
    """
    # Site itself refuses what is no role.
    found = tuple(Whole(Site(role, layer)) for layer in range(max(1, subject.n_layers)))
    for part in found:
        part.check(subject)
    return found


ROLES_TO_PATCH = tuple(role for role in ROLES if role != "attn_pattern")
"""Roles with one entry for each token."""


def _rows(activation: Tensor) -> Float[Tensor, "row width"]:
    """One row for each token; heads side by side."""
    return activation.flatten(2).flatten(0, 1)


def _values(
    dictionary: Decomposition, activation: Tensor, latents: list[int]
) -> Float[Tensor, "row latent"]:
    codes = dictionary.encode(_rows(activation).detach())
    return codes.dense()[:, latents]
