"""Matching pursuit in SAELens' layout: what its config says, and what has no form in it."""

from typing import Any

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.matching_pursuit import MatchingPursuitActivation
from modelassay.decompositions.residual_pursuit import ResidualPursuitActivation

_UNTIED = 1e-6  # of the largest weight: more is no rounding (ours)


def pursuit_config(
    dictionary: Dictionary, activation: MatchingPursuitActivation | ResidualPursuitActivation
) -> dict[str, Any]:
    """The keys beside the weights that say when rounds end.

    SAELens stores the decoder alone: its transpose is the encoder, without a bias, and the
    decoder's bias is added only if it was subtracted first.

    Raises:
        ValueRangeError: if the dictionary is not so, or its rounds end by a share of the first
            pre-activation, which has no form in SAELens.
    """
    tied = dictionary.W_dec.detach().t()
    apart = float((dictionary.W_enc.detach() - tied).abs().max())
    if apart > _UNTIED * float(tied.abs().max()):
        raise _refused("W_enc", "the transpose of W_dec", f"a difference of {apart:.2g}")
    if bool(dictionary.b_enc.any()):
        raise _refused("b_enc", "zero", f"{int(dictionary.b_enc.count_nonzero())} other entries")
    if not dictionary.apply_b_dec_to_input and bool(dictionary.b_dec.any()):
        raise _refused("b_dec", "subtracted first, or zero", "one that is only added")
    if isinstance(activation, ResidualPursuitActivation):
        residual, repeats = float(activation.residual), activation.ends_at_repeats
    elif activation.tolerance:
        raise _refused("tolerance", "0", str(activation.tolerance))
    else:
        residual, repeats = 0.0, False
    return {
        "residual_threshold": residual,
        "max_iterations": activation.k,
        "stop_on_duplicate_support": repeats,
    }


def _refused(what: str, wanted: str, found: str) -> ValueRangeError:
    return ValueRangeError(
        f"{what} of a matching pursuit must be {wanted} to have a form in SAELens; got {found}. "
        "Save it in our own format instead."
    )
