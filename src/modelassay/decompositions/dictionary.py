"""`Dictionary`: a linear encoder, a sparsifier and a linear decoder; and `Recipe`, its maker."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition, Parts, check_width
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.subjects.site import Site


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(ABC):
    """What kind of dictionary to fit; `build` makes it untrained."""

    references: ClassVar[tuple[str, ...]]

    width: int
    """Number of latents."""
    frozen_decoder: bool = False
    """Whether the decoder stays at its random start and only the encoder is trained: a baseline
    that shows how much of a score needs no learned directions (Korznikov et al. 2026)."""

    @abstractmethod
    def build(
        self,
        d_in: int,
        d_out: int,
        data_mean: Float[Tensor, " d_out"],
        generator: torch.Generator,
        site: Site | None,
    ) -> "Dictionary":
        """An untrained dictionary.

        Args:
            d_in: width of the activations.
            d_out: width of the reconstructions: the same.
            data_mean: what the decoder's bias starts from.
            generator: draws the decoder; the dictionary is made on its device.
            site: where the activations stand.

        Raises:
            ShapeError: if d_out differs from d_in.
        """

    def as_json(self) -> dict[str, Any]:
        """Its name and its fields, recipes among them likewise."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {"kind": type(self).__name__} | {
            name: value.as_json() if isinstance(value, Recipe) else value
            for name, value in own.items()
        }


WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec")
"""A dictionary's own tensors in files; the others are its sparsifier's."""

RECIPES: dict[str, type[Recipe]] = {}
"""Every recipe by its name; storage finds a new one here."""

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def register_recipe(recipe: type[AnyRecipe]) -> type[AnyRecipe]:
    """Make a recipe known to storage. A decorator.

    Raises:
        ValueRangeError: if another class has its name.
    """
    known = RECIPES.get(recipe.__name__, recipe)
    if known.__module__ != recipe.__module__:
        raise ValueRangeError(
            f"A recipe's name must be its own; got {recipe.__name__!r}, which is one of "
            f"{known.__module__}. Choose another name."
        )
    RECIPES[recipe.__name__] = recipe
    return recipe


class Dictionary(nn.Module, Decomposition):
    """A sparse dictionary: ``z = sparsify((x - b_dec) W_enc + b_enc)``, ``x̂ = z W_dec + b_dec``.

    The parameters are `W_enc` [d_in, width], `b_enc` [width], `W_dec` [width, d_out] and `b_dec`
    [d_out]. The columns of `W_enc` are contiguous in memory: its sparse gradient comes one latent
    at a time.
    """

    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "d_in width"],
        b_enc: Float[Tensor, " width"],
        W_dec: Float[Tensor, "width d_out"],
        b_dec: Float[Tensor, " d_out"],
        activation: Sparsifier,
        reads: Site | None = None,
        writes: Site | None = None,
        apply_b_dec_to_input: bool = True,
        frozen_decoder: bool = False,
        recipe: Recipe | None = None,
        name: str | None = None,
        references: tuple[str, ...] = (),
    ) -> None:
        """Make a dictionary from copies of the given weights.

        Args:
            W_enc: encoder.
            b_enc: encoder bias.
            W_dec: decoder.
            b_dec: decoder bias.
            activation: which pre-activations become latent values.
            reads: where the activations stand.
            writes: what the reconstructions stand for; the same as `reads` for an autoencoder.
            apply_b_dec_to_input: whether the encoder sees ``x - b_dec``.
            frozen_decoder: whether `W_dec` is excluded from training.
            recipe: what it was built by.
            name: for readers; made of the sparsifier and the width if None.
            references: keys of the papers; taken from the recipe if there is one.

        Raises:
            ShapeError: if the tensors do not fit each other.
        """
        super().__init__()
        _check_shapes(W_enc, b_enc, W_dec, b_dec)
        self.W_enc = nn.Parameter(W_enc.detach().t().clone(memory_format=_ROWS).t())
        self.b_enc = nn.Parameter(b_enc.detach().clone())
        self.W_dec = nn.Parameter(W_dec.detach().clone(memory_format=_ROWS), not frozen_decoder)
        self.b_dec = nn.Parameter(b_dec.detach().clone())
        self.activation = activation
        self.reads, self.writes = reads, writes
        self.apply_b_dec_to_input = apply_b_dec_to_input
        self.recipe = recipe
        self.name = name or _name(activation, self.width, frozen=frozen_decoder)
        cited = (
            (*recipe.references, *(("korznikov2026",) if frozen_decoder else ())) if recipe else ()
        )
        self.references = references or cited

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def d_in(self) -> int:
        """Width of the activations that it encodes."""
        return self.W_enc.shape[0]

    @property
    def directions(self) -> Float[Tensor, "latent d_out"]:
        """The decoder's rows, detached; of unit length in what the library fits."""
        return self.W_dec.detach()

    @property
    def covectors(self) -> Float[Tensor, "latent d_in"]:
        """The encoder's columns, detached."""
        return self.W_enc.detach().t()

    @property
    def bias(self) -> Float[Tensor, " d_out"]:
        """The decoder's bias, detached."""
        return self.b_dec.detach()

    @property
    def frozen_decoder(self) -> bool:
        """Whether the decoder is excluded from training."""
        return not self.W_dec.requires_grad

    def pre_activations(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token width"]:
        """The encoder's output before the sparsifier: dense, differentiable.

        Raises:
            ShapeError: if the width is not `d_in`.
        """
        check_width(x, self.d_in)
        return torch.addmm(self.b_enc, self._centred(x), self.W_enc)

    def _centred(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_in"]:
        return x - self.b_dec if self.apply_b_dec_to_input else x

    def encode_rows(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """Codes of a few checked tokens."""
        values, indices = self.activation.select_from(
            self._centred(x), self.pre_activations(x), self.W_enc, self.b_enc, self.W_dec
        )
        return Codes(indices=indices, values=values, width=self.width)

    def forward(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_out"]:
        """The reconstruction, as at inference; the trainer has its own sparse step."""
        return self.decode(self.encode(x))

    @torch.no_grad()
    def fold_input_scale(self, scale: float) -> None:
        """Make a dictionary that was fitted on ``scale * x`` one of x, exactly.

        ``b_enc, b_dec, threshold <- each / scale``, weights unchanged: every sparsifier commutes
        with a positive factor, so the latents' values shrink by it and the directions keep their
        length.

        Args:
            scale: what the activations were multiplied with, above 0.

        Raises:
            ValueRangeError: if the scale is not above 0.
        """
        if not scale > 0:
            raise ValueRangeError(
                f"scale must be above 0; got {scale}. Pass the factor that the fit used."
            )
        for tensor in (self.b_enc, self.b_dec, *self.activation.in_units_of_pre_activations()):
            tensor.div_(scale)

    @torch.no_grad()
    def fold_decoder_norms(self) -> None:
        """Make every direction of unit length, with the same reconstructions.

        ``W_enc, b_enc, threshold <- each * norm`` and ``W_dec <- W_dec / norm``. Rows of length 0
        stay as they are.

        Raises:
            ValueRangeError: where latents are compared: it would change which latents win.
        """
        norms = self.W_dec.norm(dim=1)
        norms[norms == 0] = 1
        self.activation.fold_norms(norms)
        self.W_dec.div_(norms.unsqueeze(1))
        self.W_enc.mul_(norms)
        self.b_enc.mul_(norms)

    def parts(self) -> Parts:
        """What `save` writes."""
        tensors = {
            "W_enc": self.W_enc.detach(),
            "b_enc": self.b_enc.detach(),
            "W_dec": self.W_dec.detach(),
            "b_dec": self.b_dec.detach(),
            **self.activation.state_dict(),
        }
        return Parts(
            kind="dictionary",
            config={
                "activation": {"kind": self.activation.kind, **self.activation.settings()},
                "apply_b_dec_to_input": self.apply_b_dec_to_input,
                "frozen_decoder": self.frozen_decoder,
                "recipe": self.recipe and self.recipe.as_json(),
            },
            tensors=tensors,
        )


_ROWS = torch.contiguous_format


def _name(activation: Sparsifier, width: int, *, frozen: bool) -> str:
    """A short name for readers."""
    k = f" (k={activation.k})" if hasattr(activation, "k") else ""
    return f"{activation.label} {width}{k}{', frozen decoder' if frozen else ''}"


def _check_shapes(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor) -> None:
    """Refuse weights that do not fit each other."""
    shapes = [list(t.shape) for t in (W_enc, b_enc, W_dec, b_dec)]
    if [t.ndim for t in (W_enc, b_enc, W_dec, b_dec)] == [2, 1, 2, 1]:
        width, d_out = W_dec.shape
        if W_enc.shape[1] == width and shapes[1] == [width] and shapes[3] == [d_out]:
            return
    raise ShapeError(
        "W_enc, b_enc, W_dec and b_dec must be [d_in, width], [width], [width, d_out] and "
        f"[d_out]; got {', '.join(map(str, shapes))}. Transpose what is the wrong way round."
    )
