"""What a widened model does on some text, by which planted neurons are sized."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlamaForCausalLM

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.harvest import harvest
from modelassay.core.progress import Progress
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.testbeds.planted.triggers import token_histories
from modelassay.testbeds.planted.widening import Widened

RESERVED = 2
"""Private dimensions that hold no feature: the constant, and the unit of height."""
_CONSTANT = 0.2  # of the embeddings' mean norm (ours): what it costs is in the tests


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """A widened model with a constant in its stream, and its activations on some text."""

    module: LlamaForCausalLM
    """Every embedding holds `height` times `constant`."""
    original: Float[Tensor, "d wide"]
    constant: Float[Tensor, " wide"]
    """Direction of the constant."""
    height: float
    """κ: how much of it."""
    unit: Float[Tensor, " wide"]
    """Direction of the unit of height, which block `layer` writes."""
    directions: Float[Tensor, "feature wide"]
    """Directions for the features."""
    epsilon: float
    """Of the norms, as the original model has it."""
    mid: dict[int, Float[Tensor, "token wide"]]
    """Block -> what its second norm reads."""
    post: dict[int, Float[Tensor, "token wide"]]
    """Block -> the residual stream behind it."""
    histories: Int[Tensor, "token history"]

    def scale(
        self, block: int, added: Float[Tensor, " token"] | float = 0.0
    ) -> Float[Tensor, " token"]:
        """ρ = (|x|²/d + ε)^(-1/2): the second norm of a block returns ρ x.

        Args:
            block: which.
            added: squared norm that features add to the stream there.
        """
        squared = self.mid[block].square().sum(1) + added
        return (squared / len(self.original) + self.epsilon).rsqrt()


def calibrate(
    model: Widened,
    n_features: int,
    layer: int,
    readers: Iterable[int],
    contexts: TokenizedCorpus,
    progress: Progress | None,
) -> Calibration:
    """Put the constant into the stream and run the model on the calibration text."""
    module = copy.deepcopy(model.module)
    embedding = module.model.embed_tokens.weight
    height = _CONSTANT * float(embedding.norm(dim=1).mean())
    embedding += height * model.private[0]
    blocks = sorted({layer, *readers})
    mid = {block: Site("resid_mid", block) for block in blocks}
    post = {block: Site("resid_post", block) for block in blocks}
    found = harvest(
        load_subject(module), contexts, [*mid.values(), *post.values()], progress=progress
    )
    d, wide = model.original.shape
    return Calibration(
        module=module,
        original=model.original,
        constant=model.private[0],
        height=height,
        unit=model.private[1],
        directions=model.private[RESERVED : RESERVED + n_features],
        epsilon=module.config.rms_norm_eps * wide / d,
        mid={block: found.activations(site) for block, site in mid.items()},
        post={block: found.activations(site) for block, site in post.items()},
        histories=token_histories(contexts),
    )
