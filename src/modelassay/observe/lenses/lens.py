"""`Lens`: a map from the residual stream at some depth to the stream at the end of the model.

Depth 0 is the stream before the first block, depth `l + 1` the output of block `l`. At the last
depth every lens is the identity, so a lens's last entry is the model's own prediction.
"""

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import (
    ProvenanceError,
    ShapeError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.provenance import hash_tensors
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


class Lens(ABC):
    """Translates the residual stream at any depth into the basis of the last one."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What readers call it."""

    @abstractmethod
    def translate(
        self, resid: Float[Tensor, "*token d_model"], depth: int
    ) -> Float[Tensor, "*token d_model"]:
        """The stream at `depth` as the lens expects it after the last block.

        Raises:
            ShapeError: the stream has another width than the lens.
            ValueRangeError: the model has no such depth.
        """

    @abstractmethod
    def check(self, subject: Subject) -> None:
        """Refuse a model that this lens was not made for.

        Raises:
            ProvenanceError: the unembedding, the width or the number of layers differ.
            UnsupportedModelError: the subject is no verified language model.
        """


@final
class LogitLens(Lens):
    """The identity: each depth is read by the final norm and the unembedding as it is.

    Reference: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """

    @property
    def name(self) -> str:
        """What readers call it."""
        return "logit"

    def translate(
        self, resid: Float[Tensor, "*token d_model"], depth: int
    ) -> Float[Tensor, "*token d_model"]:
        """The stream itself."""
        del depth
        return resid

    def check(self, subject: Subject) -> None:
        """Any verified language model will do."""
        depth_sites(subject)


def depth_sites(subject: Subject) -> tuple[Site, ...]:
    """The residual stream at every depth: before the first block, then after each block.

    Raises:
        UnsupportedModelError: the subject is no verified language model.
    """
    if subject.structure is None:
        raise UnsupportedModelError(
            f"A lens needs a language model whose roles were verified; got {subject.name!r}, which "
            "has module ports only. Load it with roles=True."
        )
    after = (Site("resid_post", layer) for layer in range(subject.n_layers))
    return (Site("resid_pre", 0), *after)


def depth_names(n_layers: int) -> tuple[str, ...]:
    """ "embedding", then the number of each block whose output is read."""
    return ("embedding", *(str(layer) for layer in range(n_layers)))


def unembedding_hash(subject: Subject) -> str:
    """Hash of all that turns a final residual stream into logits: norm and unembedding.

    A lens keeps it, so that one that was fitted to another model is refused.
    """
    norm = subject.final_norm
    tensors = {} if norm is None else {f"norm.{k}": v for k, v in norm.state_dict().items()}
    head = subject.unembedding_module.state_dict()
    return hash_tensors(tensors | {f"head.{k}": v for k, v in head.items()})


def check_depth(depth: int, n_layers: int) -> None:
    """Refuse a depth that the model does not have.

    Raises:
        ValueRangeError: it has no such depth.
    """
    if not 0 <= depth <= n_layers:
        raise ValueRangeError(
            f"depth must be from 0 (before the first block) to {n_layers}; got {depth}. "
            "The output of block l is depth l + 1."
        )


def check_stream(resid: Float[Tensor, "*token width"], d_model: int) -> None:
    """Refuse a tensor that is no residual stream of this width.

    Raises:
        ShapeError: its last axis has another size.
    """
    if resid.shape[-1] != d_model:
        raise ShapeError(
            f"A residual stream must have {d_model} components here; got {list(resid.shape)}. "
            "Read resid_pre or resid_post of the model that the lens was made for."
        )


def check_fitted(subject: Subject, *, kind: str, n_layers: int, d_model: int, head: str) -> None:
    """Refuse a model other than the one that a lens was fitted to.

    Args:
        subject: the model that the lens shall read.
        kind: of the lens, for the message.
        n_layers: of the model that it was fitted to.
        d_model: its width.
        head: its `unembedding_hash`.

    Raises:
        ProvenanceError: the unembedding, the width or the number of layers differ.
        UnsupportedModelError: the subject is no verified language model.
    """
    depth_sites(subject)
    if (subject.n_layers, subject.d_model) != (n_layers, d_model):
        raise ProvenanceError(
            f"A {kind} lens must read the model that it was fitted to, with {n_layers} layers of "
            f"width {d_model}; got {subject.name!r} with {subject.n_layers} of {subject.d_model}. "
            "Fit a lens for this model."
        )
    found = unembedding_hash(subject)
    if found != head:
        raise ProvenanceError(
            f"A {kind} lens must read the model that it was fitted to, whose norm and unembedding "
            f"have the hash {head}; got {subject.name!r} with {found}. Fit a lens for this model."
        )
