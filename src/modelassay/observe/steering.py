"""Steering: change latents or directions of a site while a model reads, scores or generates.

Each steered unit has a value ``v`` and a direction ``d``. With an operation that makes it v',

    x' = x + sum_i (v'_i - v_i) d_i,

so that of a dictionary only what the latents contribute changes: the other latents and the error
``x - decode(encode(x))`` stay as they are. A direction's value is the component ``x · d`` along it,
and its d has unit length: to clamp it to 0 is to project it away.

Reference: Turner et al. 2023, "Activation addition"; Templeton et al. 2024 (clamped latents);
Arditi et al. 2024 (directional ablation).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.observe.patching_parts import check_dictionary
from modelassay.observe.steering_operations import Operation
from modelassay.observe.steering_where import EVERYWHERE, Where
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.subjects.visitors import Edit


@runtime_checkable
class Units(Protocol):
    """What is steered: values read from an activation, and the directions they are written in."""

    @property
    def name(self) -> str:
        """For readers."""
        ...

    @property
    def written(self) -> Float[Tensor, "unit width"]:
        """What one more of each value adds to the activation."""
        ...

    def values(self, rows: Float[Tensor, "row width"]) -> Float[Tensor, "row unit"]:
        """The values in some activations."""
        ...

    def check(self, subject: Subject, site: Site) -> None:
        """Refuse a site or model that they do not belong to."""
        ...

    def turned(self, written: Float[Tensor, "unit width"]) -> "Units":
        """The same values, written in other directions."""
        ...


@dataclass(frozen=True, slots=True)
class SteeredLatents:
    """Latents of a dictionary.

    Raises:
        ValueRangeError: it does not have one of the latents, one is named twice, or none is.
    """

    dictionary: Decomposition
    latents: tuple[int, ...]
    replaced: Float[Tensor, "unit width"] | None = None
    """Directions to write in instead of the dictionary's: a null."""

    def __post_init__(self) -> None:
        beyond = [latent for latent in self.latents if not 0 <= latent < self.dictionary.width]
        if beyond:
            raise ValueRangeError(
                f"Latents must be from 0 to {self.dictionary.width - 1}; got {beyond[0]}. "
                f"Choose latents of {self.dictionary.name!r}."
            )
        if not self.latents or len(set(self.latents)) < len(self.latents):
            raise ValueRangeError(
                f"Latents to steer must be different ones, at least one; got {self.latents}. "
                "Name each once."
            )

    @property
    def name(self) -> str:
        """Their numbers and their dictionary."""
        return f"latent {', '.join(map(str, self.latents))} of {self.dictionary.name}"

    @property
    def written(self) -> Float[Tensor, "unit width"]:
        """The latents' directions."""
        own = self.dictionary.directions[list(self.latents)]
        return own if self.replaced is None else self.replaced

    def values(self, rows: Float[Tensor, "row width"]) -> Float[Tensor, "row unit"]:
        """The latents' values."""
        return self.dictionary.encode(rows).dense()[:, list(self.latents)]

    def check(self, subject: Subject, site: Site) -> None:
        """Refuse a site or model that the dictionary does not belong to.

        Raises:
            ProvenanceError: it was fitted at another site, on another model, or is a transcoder.
            ShapeError: it is of another width than the site.
        """
        check_dictionary(subject, site, self.dictionary, self.latents)

    def turned(self, written: Float[Tensor, "unit width"]) -> "SteeredLatents":
        """The same latents, written in other directions."""
        return replace(self, replaced=written)


class SteeredDirection:
    """A direction of a site; its length is not used, strengths are in the site's units.

    Raises:
        NonFiniteError: if it holds NaN or Inf.
        ValueRangeError: if its length is 0.
    """

    def __init__(self, direction: Float[Tensor, " width"], name: str = "direction") -> None:
        if not bool(direction.isfinite().all()):
            raise NonFiniteError(
                "A direction must be finite; got NaN or Inf. Look for an overflow in the model."
            )
        if not bool(direction.any()):
            raise ValueRangeError(
                "A direction must have a length above 0; got 0. Take it from prompts that differ."
            )
        self._unit = torch.nn.functional.normalize(direction.detach().float(), dim=0)
        self._written = self._unit[None]
        self._name = name

    @property
    def name(self) -> str:
        """What it was called."""
        return self._name

    @property
    def written(self) -> Float[Tensor, "unit width"]:
        """The direction, of unit length."""
        return self._written

    def values(self, rows: Float[Tensor, "row width"]) -> Float[Tensor, "row unit"]:
        """The component along the direction."""
        return rows @ self._unit.to(rows)[:, None]

    def check(self, subject: Subject, site: Site) -> None:
        """Refuse a site of another width.

        Raises:
            ShapeError: the direction has another number of components than the site.
        """
        width = subject.width(site) * (subject.n_heads if site.role == "head_out" else 1)
        if len(self._unit) != width:
            raise ShapeError(
                f"A direction at {site} must have {width} components; got {len(self._unit)}. "
                "Use the site and model that it was made for."
            )

    def turned(self, written: Float[Tensor, "unit width"]) -> "SteeredDirection":
        """The same component, written in another direction."""
        other = SteeredDirection(self._unit, self._name)
        other._written = written
        return other


@dataclass(frozen=True, kw_only=True, slots=True)
class Steering:
    """Units of one site, what is done to them, and where."""

    site: Site
    units: Units
    operation: Operation
    where: Where = EVERYWHERE

    def at(self, strength: float) -> "Steering":
        """The same with another strength."""
        return replace(self, operation=self.operation.at(strength))

    def check(self, subject: Subject) -> None:
        """Refuse a model that this steering does not belong to.

        Raises:
            UnknownNameError: no such site.
            ModelassayError: what the units refuse.
        """
        self.units.check(subject, subject.resolve(self.site))

    def edits(self, tokens: Int[Tensor, "batch token"]) -> dict[Site, Edit]:
        """The edit for these tokens, to be given to `Subject.run`; none if nothing would change."""
        if self.operation.changes_nothing:
            return {}
        mask = self.where.mask(tokens)
        return {self.site: lambda activation: self.steered(activation, mask)}

    @torch.no_grad()
    def steered(
        self, activation: Float[Tensor, "batch token ..."], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token ..."]:
        """The activation with the units changed where the mask is True.

        Raises:
            ShapeError: the site does not hold one entry for each token.
        """
        if activation.shape[:2] != mask.shape or activation.ndim < 3:
            raise ShapeError(
                f"A steered site must hold one entry for each token {list(mask.shape)}; got "
                f"{list(activation.shape)} at {self.site}. Choose a site [batch token …]."
            )
        changed = activation.flatten(2).clone()
        chosen = mask.to(activation.device)
        rows = changed[chosen]
        if len(rows):
            change = self.operation.change(self.units.values(rows)).to(rows)
            changed[chosen] = rows + change @ self.units.written.to(rows)
        return changed.view(activation.shape)


def together(steerings: Sequence[Steering], tokens: Int[Tensor, "batch token"]) -> dict[Site, Edit]:
    """The edits of several steerings; those of one site act one after the other."""
    by_site: dict[Site, list[Edit]] = {}
    for steering in steerings:
        for site, edit in steering.edits(tokens).items():
            by_site.setdefault(site, []).append(edit)
    return {site: _one_after_the_other(edits) for site, edits in by_site.items()}


def _one_after_the_other(edits: Sequence[Edit]) -> Edit:
    def edit(activation: Tensor) -> Tensor:
        for each in edits:
            activation = each(activation)
        return activation

    return edit


def generate_steered(
    subject: Subject,
    prompts: Int[Tensor, "batch token"],
    steerings: Sequence[Steering],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch longer"]:
    """Continue prompts of equal length while steering; without steerings, as the model does.

    Args:
        steerings: act on the prompt and on what is generated, as their `where` says.
        temperature: 0 takes the likeliest token.
        generator: needed when the temperature is above 0.

    Raises:
        ValueRangeError: a text longer than the model's context, or a bad temperature.
        ModelassayError: what a steering refuses.
    """
    for steering in steerings:
        steering.check(subject)
    longest = prompts.shape[1] + max_new_tokens
    if longest - 1 > subject.context_tokens:
        raise ValueRangeError(
            f"Prompt and continuation must fit into {subject.context_tokens} tokens; got "
            f"{longest}. Shorten the prompt, or generate fewer tokens."
        )

    def edits(tokens: Tensor) -> Mapping[Site, Edit]:
        return together(steerings, tokens)

    return subject.generate(
        prompts,
        max_new_tokens=max_new_tokens,
        edit=edits,
        temperature=temperature,
        generator=generator,
    )


def random_directions(
    like: Float[Tensor, "unit width"], generator: torch.Generator
) -> Float[Tensor, "unit width"]:
    """Directions of the same lengths, uniformly distributed on the sphere."""
    drawn = torch.randn(like.shape, generator=generator)
    lengths = like.norm(dim=1, keepdim=True)
    return torch.nn.functional.normalize(drawn, dim=1).to(like) * lengths
