"""`Sparsifier`: which pre-activations become latent values. The part to write for a new one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import CorruptFileError, UnknownNameError, ValueRangeError
from modelassay.decompositions.batch import BatchCodes, EncoderBatch
from modelassay.decompositions.encoders import encode_slots


class Sparsifier(nn.Module, ABC):
    """From pre-activations to latent values.

    `select` alone must be written. Parameters and buffers of the module are trained, saved and
    read back by their names; a number such as k comes back through `settings`.
    """

    kind: ClassVar[str]
    """Its name in files."""
    label: ClassVar[str]
    """Its name for readers."""
    compares_latents: ClassVar[bool] = False
    """Whether a latent's value depends on other latents', so that rescaling one alone would
    change which are active."""
    varies_k: ClassVar[bool] = False
    """Whether `encode` keeps `EncoderBatch.k` latents a token where it is given; `settings` then
    has the final "k"."""
    signed: ClassVar[bool] = False
    """Whether values may be negative."""

    values_are_pre_activations: ClassVar[bool] = True
    """Whether an active latent's value is its pre-activation."""

    @abstractmethod
    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents at inference; a slot of value 0 is empty."""

    def select_with(
        self,
        pre: Float[Tensor, "token width"],
        W_enc: Float[Tensor, "d_in width"],
        W_dec: Float[Tensor, "width d_out"],
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """`select`, for a sparsifier whose choice depends also on how latents overlap."""
        del W_enc, W_dec
        return self.select(pre)

    def select_from(
        self,
        x: Float[Tensor, "token d_in"],
        pre: Float[Tensor, "token width"],
        W_enc: Float[Tensor, "d_in width"],
        b_enc: Float[Tensor, " width"],
        W_dec: Float[Tensor, "width d_out"],
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """`select_with`, for one whose choice depends also on the centred activations."""
        del x, b_enc
        return self.select_with(pre, W_enc, W_dec)

    def encode(self, batch: EncoderBatch) -> BatchCodes:
        """Codes of a batch in training, differentiable.

        This one serves every sparsifier whose values are pre-activations, or 0.
        """
        values, indices = encode_slots(
            batch.x, batch.W_enc, batch.b_enc, self.select, centre=batch.centre, buffer=batch.buffer
        )
        return BatchCodes(values=values, indices=indices)

    def settings(self) -> dict[str, Any]:
        """What the constructor must be told besides parameters and buffers, in JSON's types."""
        return {}

    @classmethod
    def read(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "Sparsifier":
        """The sparsifier that had these settings, and these parameters and buffers."""
        return cls(**settings, **tensors)

    def in_units_of_pre_activations(self) -> tuple[Tensor, ...]:
        """Its tensors that scale with the activations."""
        return ()

    def fold_norms(self, norms: Float[Tensor, " width"]) -> None:
        """Adapt to pre-activations that were multiplied with one factor per latent.

        Raises:
            ValueRangeError: where latents are compared: it would change which latents win.
        """
        if self.compares_latents:
            raise ValueRangeError(
                "Decoder norms can be folded only where each latent is chosen on its own; got "
                f"{self.kind}. Keep the decoder's rows at unit length while fitting."
            )
        for tensor in self.in_units_of_pre_activations():
            tensor.data.mul_(norms)

    def project(self) -> None:
        """Bring parameters back to where they may be, after an optimiser's step."""


class BatchSparsifier(Sparsifier):
    """Compares the tokens of a batch in training, which inference must not do.

    A threshold takes the comparison's place: a token's code would otherwise depend on its
    neighbours.
    """

    k: int
    """Mean number of active latents of a token."""

    @abstractmethod
    def calibrate(self, threshold: float) -> None:
        """Set the threshold: a pre-activation that is greater is active."""


AnySparsifier = TypeVar("AnySparsifier", bound=Sparsifier)

SPARSIFIERS: dict[str, type[Sparsifier]] = {}
"""Every sparsifier by its kind; storage finds a new one here."""


def register_sparsifier(sparsifier: type[AnySparsifier]) -> type[AnySparsifier]:
    """Make a sparsifier known to storage. A decorator.

    Raises:
        ValueRangeError: if another class has its kind.
    """
    known = SPARSIFIERS.setdefault(sparsifier.kind, sparsifier)
    if (known.__module__, known.__qualname__) != (sparsifier.__module__, sparsifier.__qualname__):
        raise ValueRangeError(
            f"A sparsifier's kind must be its own; got {sparsifier.kind!r}, which is "
            f"{known.__qualname__}'s. Choose another kind."
        )
    SPARSIFIERS[sparsifier.kind] = sparsifier
    return sparsifier


def read_sparsifier(
    kind: str, settings: Mapping[str, Any], tensors: dict[str, Tensor]
) -> Sparsifier:
    """The sparsifier of a saved dictionary.

    Raises:
        UnknownNameError: if no sparsifier of that kind is registered.
        CorruptFileError: if it does not have these settings and tensors.
    """
    if kind not in SPARSIFIERS:
        raise UnknownNameError("A sparsifier's kind", kind, SPARSIFIERS)
    try:
        return SPARSIFIERS[kind].read(settings, tensors)
    except (KeyError, TypeError) as error:
        missing = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise CorruptFileError(
            f"A sparsifier of the kind {kind!r} must have its own settings and tensors; got "
            f"{sorted({*settings, *tensors})}: {missing}. Make the dictionary again."
        ) from error
