"""Which pre-activations become latent values, at inference."""

from typing import Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.selection import above, abs_topk, group_max, pad_bags, topk


@final
class TopKActivation(nn.Module):
    """Keep the k largest of every token, as far as they are positive.

    Reference: Gao et al. 2024, section 2.3.
    """

    kind: Literal["topk"] = "topk"

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        values, indices = topk(pre, self.k)
        return values.relu(), indices


@final
class BatchTopKActivation(nn.Module):
    """Keep what exceeds one threshold, calibrated so that k per token do on average.

    Training compares the tokens of a batch instead; inference must not, because a token's code
    would then depend on its neighbours.

    Reference: Bussmann, Leask, Nanda 2024, section 3.
    """

    kind: Literal["batchtopk"] = "batchtopk"
    threshold: Float[Tensor, ""]
    """In units of pre-activations; NaN until it is calibrated."""

    def __init__(self, k: int, threshold: float | None = None) -> None:
        super().__init__()
        self.k = k
        value = float("nan") if threshold is None else threshold
        self.register_buffer("threshold", torch.tensor(value, dtype=torch.float32))

    def calibrate(self, threshold: float) -> None:
        """Set the threshold: what is greater is active."""
        self.threshold.fill_(threshold)

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents.

        Raises:
            ValueRangeError: if the threshold was never calibrated.
        """
        if bool(self.threshold.isnan()):
            raise ValueRangeError(
                "A BatchTopK dictionary must have a calibrated threshold to encode; got none. "
                "Fit it to the end, or call activation.calibrate(threshold)."
            )
        return pad_bags(*above(pre, self.threshold.clamp(min=0)))


@final
class AbsTopKActivation(nn.Module):
    """Keep the k entries of every token that are largest in magnitude, with their signs.

    Reference: Zhu, Khalili, Zhu 2025, "AbsTopK".
    """

    kind: Literal["abstopk"] = "abstopk"

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        return abs_topk(pre, self.k)


@final
class GroupMaxActivation(nn.Module):
    """Keep the largest of each of k groups of consecutive latents, as far as it is positive.

    Reference: Srivastava et al. 2013, "Compete to compute", section 3; as the sparsifier of a
    dictionary in EleutherAI's sparsify.
    """

    kind: Literal["groupmax"] = "groupmax"

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        values, indices = group_max(pre, self.k)
        return values.relu(), indices


@final
class ReLUActivation(nn.Module):
    """Keep what is positive."""

    kind: Literal["relu"] = "relu"

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        return pad_bags(*above(pre, 0.0))


@final
class JumpReLUActivation(nn.Module):
    """Keep what is positive and exceeds its latent's threshold, at its full value.

    Reference: Rajamanoharan et al. 2024, section 3.
    """

    kind: Literal["jumprelu"] = "jumprelu"
    threshold: Float[nn.Parameter, " width"]
    """In units of pre-activations; trained by the `JumpReLU` recipe."""

    def __init__(self, threshold: Float[Tensor, " width"]) -> None:
        super().__init__()
        self.threshold = nn.Parameter(threshold.detach().clone())

    def select(
        self, pre: Float[Tensor, "token width"]
    ) -> tuple[Float[Tensor, "token slot"], Int[Tensor, "token slot"]]:
        """Values and latents."""
        return pad_bags(*above(pre, self.threshold.clamp(min=0)))


ComparingSparsifier = TopKActivation | BatchTopKActivation | AbsTopKActivation | GroupMaxActivation
"""Keeps k latents a token by comparing them with each other."""

Sparsifier = ComparingSparsifier | ReLUActivation | JumpReLUActivation
