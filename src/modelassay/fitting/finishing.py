"""From trained weights to a dictionary for inference, and whether it is as sparse there."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.source import ActivationSource
from modelassay.core.errors import TooFewTokensError
from modelassay.core.provenance import Fact
from modelassay.core.randomness import derived
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifier import BatchSparsifier
from modelassay.fitting.calibration import calibrate_threshold
from modelassay.fitting.whitening import Whitening
from modelassay.subjects.site import Site

CALIBRATION_TOKENS = 100_000
"""Held-out tokens, at most, that a threshold is calibrated on (ours)."""
COMPARISON_TOKENS = 16_384
"""Held-out tokens, at most, on which training and inference are compared (ours)."""
LARGEST_GAP = 0.02
"""Relative gap of the two L0 from which on a fit warns (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SparsityGap:
    """How many latents are active per token as training selects them, and at inference."""

    training: float
    """Mean L0 of training's selection, which may compare the tokens of a batch."""
    inference: float
    """Mean L0 of the same tokens, encoded one by one."""

    @property
    def relative(self) -> float:
        """``inference / training - 1``; 0 if nothing is active in either."""
        if self.training == self.inference:
            return 0.0
        return self.inference / self.training - 1 if self.training else float("inf")

    def facts(self) -> dict[str, Fact]:
        """What provenance says of it."""
        return {
            "l0_training": self.training,
            "l0_inference": self.inference,
            "l0_gap": self.relative,
        }


def heldout_tokens(
    harvest: ActivationSource, sites: Sequence[Site], most: int = CALIBRATION_TOKENS
) -> Float[Tensor, "token joint"]:
    """A random sample of the held-out side; several sites stand side by side in each row.

    Raises:
        TooFewTokensError: if no tokens are held out.
    """
    source = harvest.select("heldout")
    batch_tokens = min(1024, source.n_tokens)
    stream = source.joint_stream(
        sites,
        batch_tokens=batch_tokens,
        generator=derived(0, "calibration"),
        epochs=1,
        refuse_non_finite=False,
    )
    wanted = min(most, source.n_tokens)
    return torch.cat([next(stream) for _ in range(wanted // batch_tokens)]).float()


def heldout_tokens_if_any(
    harvest: ActivationSource, sites: Sequence[Site]
) -> Float[Tensor, "token joint"] | None:
    """A small sample of the held-out side; None if no tokens are held out."""
    try:
        return heldout_tokens(harvest, sites, COMPARISON_TOKENS)
    except TooFewTokensError:
        return None


def finish(
    dictionary: Dictionary,
    normalisation: float | Whitening,
    heldout: Float[Tensor, "token d_in"] | None,
    *,
    unit_decoder: bool,
) -> None:
    """Make a trained dictionary one of the model's own units, ready for inference.

    Args:
        dictionary: of normalised activations; changed in place.
        normalisation: the factor or the whitening that it was fitted under.
        heldout: unscaled tokens that a threshold is calibrated on, where one is needed.
        unit_decoder: whether the rows had unit length while they were fitted.
    """
    if isinstance(normalisation, Whitening):
        normalisation.fold(dictionary)
    else:
        dictionary.fold_input_scale(normalisation)
    if not unit_decoder:
        dictionary.fold_decoder_norms()
    if heldout is not None:
        calibrate_on(dictionary, heldout)


def calibrate_on(dictionary: Dictionary, tokens: Float[Tensor, "token d_in"]) -> None:
    """Set the threshold of a dictionary that compares tokens in training; others stay."""
    activation = dictionary.activation
    if isinstance(activation, BatchSparsifier):
        device = dictionary.W_enc.device
        threshold = calibrate_threshold(
            lambda x: dictionary.pre_activations(x.to(device)), tokens, activation.k
        )
        activation.calibrate(threshold)


@torch.no_grad()
def sparsity_gap(
    dictionary: Dictionary, tokens: Float[Tensor, "token d_in"], batch_tokens: int
) -> SparsityGap:
    """Compare training's selection with inference on the same tokens.

    Args:
        dictionary: ready for inference.
        tokens: unscaled, best held-out ones; at most `COMPARISON_TOKENS` are used.
        batch_tokens: tokens of a training batch, which are compared with each other.
    """
    tokens = tokens[:COMPARISON_TOKENS].to(dictionary.W_enc)
    selected = sum(
        int((dictionary.activation.encode(_batch(dictionary, rows)).values != 0).sum())
        for rows in tokens.split(batch_tokens)
    )
    n = max(len(tokens), 1)
    active = float(dictionary.encode(tokens).l0().double().sum())
    return SparsityGap(training=selected / n, inference=active / n)


def _batch(dictionary: Dictionary, rows: Tensor) -> EncoderBatch:
    return EncoderBatch(
        x=rows,
        W_enc=dictionary.W_enc,
        b_enc=dictionary.b_enc,
        centre=dictionary.b_dec if dictionary.apply_b_dec_to_input else None,
        W_dec=dictionary.W_dec,
    )


def warn_of_gap(name: str, gap: SparsityGap) -> None:
    """Warn if inference is not as sparse as training was."""
    if abs(gap.relative) > LARGEST_GAP:
        warnings.warn(
            f"{name} has {gap.inference:.4g} active latents a token at inference and "
            f"{gap.training:.4g} as training selects them, on the same held-out tokens: "
            f"{gap.relative:+.1%}. Hold out more tokens to calibrate its threshold on.",
            stacklevel=2,
        )
