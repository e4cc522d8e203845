"""A `Dictionary` from another library's weights, and the encoder's bias in either convention."""

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.gated import GatedActivation
from modelassay.decompositions.sparsifier import Sparsifier
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

_PAPERS = {
    "relu": ("bricken2023",),
    "topk": ("gao2024",),
    "batchtopk": ("bussmann2024",),
    "jumprelu": ("rajamanoharan2024jumprelu",),
    "gated": ("rajamanoharan2024gated",),
}


def assemble(
    W_enc: Float[Tensor, "d_in width"],
    b_enc: Float[Tensor, " width"],
    W_dec: Float[Tensor, "width d_out"],
    b_dec: Float[Tensor, " d_out"],
    activation: Sparsifier,
    *,
    subtracts: bool,
    reads: Site | None,
    writes: Site | None = None,
) -> Dictionary:
    """The dictionary with the papers of its sparsifier.

    Args:
        W_enc: encoder.
        b_enc: encoder bias.
        W_dec: decoder.
        b_dec: decoder bias.
        activation: which pre-activations become latent values.
        subtracts: whether the encoder sees ``x - b_dec``.
        reads: where the activations stand, if known.
        writes: what the reconstructions stand for; None means the same, if that is known.
    """
    return Dictionary(
        W_enc=W_enc,
        b_enc=b_enc,
        W_dec=W_dec,
        b_dec=b_dec,
        activation=activation,
        reads=reads,
        writes=reads if writes is None else writes,
        apply_b_dec_to_input=subtracts,
        references=_PAPERS.get(activation.kind, ()),
    )


def encoder_bias(dictionary: Dictionary, *, subtracts: bool) -> Float[Tensor, " width"]:
    """The bias with which the same encoder sees ``x - b_dec``, or plain x.

    ``(x - b_dec) W + b = x W + (b - b_dec W)``, computed in double precision.
    """
    bias = dictionary.b_enc.detach()
    if dictionary.apply_b_dec_to_input == subtracts:
        return bias
    shift = dictionary.b_dec.detach().double() @ dictionary.W_enc.detach().double()
    return (bias.double() + (shift if subtracts else -shift)).to(bias)


def gated_biases(
    activation: GatedActivation, b_gate: Float[Tensor, " width"]
) -> dict[str, Float[Tensor, " width"]]:
    """``b_gate``, ``b_mag`` and ``r_mag`` of two encoders with tied directions.

    ``b_mag = o + exp(r) b_gate``, with o and r of the sparsifier (see there).
    """
    gain, gate = activation.log_gain.detach(), b_gate.detach()
    return {"b_gate": gate, "b_mag": activation.offset.detach() + gain.exp() * gate, "r_mag": gain}


def require_both_sites(reads: Site | None, writes: Site | None, path: Path) -> None:
    """Refuse a transcoder of which only one side is known.

    Raises:
        ValueRangeError: if so.
    """
    if (reads is None) != (writes is None):
        raise ValueRangeError(
            f"{str(path)!r}: what a transcoder reads and writes must both be known, or neither; "
            f"got {reads} and {writes}. Pass reads= and writes=."
        )


def require_autoencoder(dictionary: Dictionary) -> None:
    """Refuse what does not reconstruct what it reads.

    Raises:
        ShapeError: if it is no autoencoder.
    """
    skips = isinstance(dictionary, SkipTranscoder)  # its sites may both be unknown
    if skips or dictionary.d_in != dictionary.d_out or dictionary.reads != dictionary.writes:
        raise ShapeError(
            "Only dictionaries that reconstruct what they read have this form; got "
            f"{dictionary.d_in} -> {dictionary.d_out}. Save it in our own format instead."
        )


def calibrated(threshold: Float[Tensor, ""]) -> float:
    """The threshold of a BatchTopK dictionary that is to be exported.

    Raises:
        ValueRangeError: if there is none yet.
    """
    if bool(threshold.isnan()):
        raise ValueRangeError(
            "A BatchTopK dictionary must have a calibrated threshold to be exported; got "
            "none. Fit it to the end, or call activation.calibrate(threshold)."
        )
    return float(threshold)
