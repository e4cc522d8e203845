"""The tuned lens: an affine map per depth, trained so that each depth predicts what the end does.

``translated = h + A_l h + b_l`` with A and b zero at the start, which is the logit lens exactly.
"""

from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import CorruptFileError, ShapeError
from modelassay.core.provenance import Provenance
from modelassay.observe.lenses.lens import (
    Lens,
    check_depth,
    check_fitted,
    check_stream,
    depth_sites,
    unembedding_hash,
)
from modelassay.observe.lenses.storage import Header, read_lens, write_lens
from modelassay.subjects.subject import Subject


@final
class TunedLens(Lens):
    """An affine translator for every depth but the last.

    Reference: Belrose et al. 2023, "Eliciting latent predictions from transformers with the tuned
    lens", section 3.
    """

    def __init__(
        self,
        *,
        weight: Float[Tensor, "map d_out d_in"],
        bias: Float[Tensor, "depth d_model"],
        header: Header,
    ) -> None:
        if weight.shape != (*bias.shape, bias.shape[-1]):
            raise ShapeError(
                "weight and bias of a tuned lens must be [depth, d_model, d_model] and "
                f"[depth, d_model]; got {list(weight.shape)} and {list(bias.shape)}. "
                "Pass one map for every depth but the last."
            )
        self.weight, self.bias, self.header = weight, bias, header

    @staticmethod
    def untrained(subject: Subject, *, provenance: Provenance | None = None) -> "TunedLens":
        """A lens of zeros, which is the logit lens.

        Raises:
            UnsupportedModelError: the subject is no verified language model.
        """
        n_maps, width = len(depth_sites(subject)) - 1, subject.d_model
        return TunedLens(
            weight=torch.zeros(n_maps, width, width, device=subject.device),
            bias=torch.zeros(n_maps, width, device=subject.device),
            header=Header(
                kind="tuned",
                subject=subject.name,
                head=unembedding_hash(subject),
                provenance=provenance or Provenance.collect(seed=0),
            ),
        )

    @property
    def name(self) -> str:
        """What readers call it."""
        return "tuned"

    @property
    def n_layers(self) -> int:
        """Blocks of the model: one map for the stream before each."""
        return len(self.bias)

    def translate(
        self, resid: Float[Tensor, "*token d_model"], depth: int
    ) -> Float[Tensor, "*token d_model"]:
        """``h + A h + b``; the last depth as it is.

        Raises:
            ShapeError: the stream has another width than the lens.
            ValueRangeError: the model has no such depth.
        """
        check_stream(resid, self.bias.shape[1])
        check_depth(depth, self.n_layers)
        if depth == self.n_layers:
            return resid
        weight, bias = self.weight[depth].to(resid), self.bias[depth].to(resid)
        return resid + resid @ weight.T + bias

    def check(self, subject: Subject) -> None:
        """Refuse a model that this lens was not trained on."""
        check_fitted(
            subject,
            kind="tuned",
            n_layers=self.n_layers,
            d_model=self.bias.shape[1],
            head=self.header.head,
        )

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write the lens as one safetensors file.

        Raises:
            OutputExistsError: there is a file already, and `force` is False.
            StorageError: the place cannot be written.
        """
        write_lens(path, self.header, {"weight": self.weight, "bias": self.bias}, force=force)

    @staticmethod
    def load(path: str | Path) -> "TunedLens":
        """Read a lens that `save` wrote.

        Raises:
            CorruptFileError: the file is damaged, or holds no tuned lens.
            FileNotFoundError: there is none.
        """
        header, tensors = read_lens(path)
        if header.kind != "tuned" or not {"weight", "bias"} <= set(tensors):
            raise CorruptFileError(
                f"{str(path)!r} must hold a tuned lens with weight and bias; got a {header.kind} "
                f"lens with {', '.join(sorted(tensors))}. Name another file."
            )
        return TunedLens(weight=tensors["weight"], bias=tensors["bias"], header=header)
