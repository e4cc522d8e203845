"""What the rounds of a pursuit cost, in closed form; symbols as in `forecast_costs`."""

from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_job import Job

_LARGEST_OVERLAPS = 2**28  # entries, as in `matching_pursuit`
_ROUND_PASSES = 6  # over [B, F] a round: rows of overlaps read and written, subtracted, searched
_CHOSEN_PASSES = 12  # over k rows of length d a token: gathered, summed up, three gradients
_FLOAT_BYTES, _DOUBLE_BYTES = 4, 8


def holds_overlaps(dictionary: DictionaryShape, job: Job) -> bool:
    """Whether ``W_dec W_enc`` is made once a step, in the place of a product in every round."""
    choices = job.batch_tokens * job.active(dictionary)
    fits = dictionary.width**2 <= _LARGEST_OVERLAPS
    return dictionary.pursuit == "matching" and fits and choices > dictionary.width


def pursuit_products(dictionary: DictionaryShape, job: Job) -> float:
    """Dense products of the rounds, in units of the encoder's: k, or ``F / B`` for overlaps.

    A round of orthogonal matching pursuit multiplies what is explained with the whole encoder, but
    for the last one; one of matching pursuit does so where overlaps are too many to be held.
    """
    if dictionary.pursuit is None:
        return 0.0
    if dictionary.pursuit == "orthogonal":
        return job.active(dictionary) - 1
    return (
        dictionary.width / job.batch_tokens
        if holds_overlaps(dictionary, job)
        else job.active(dictionary)
    )


def pursuit_flops(dictionary: DictionaryShape, job: Job) -> float:
    """FLOPs of a token besides: ``2 k² d`` for overlaps of the chosen, and least squares' k⁴ / 6.

    Every round of orthogonal matching pursuit solves a system of its size t, about twice, at
    ``t³ / 3``.
    """
    k = job.active(dictionary)
    if dictionary.pursuit is None:
        return 0.0
    return 2 * k**2 * job.d + (k**4 / 6 if dictionary.pursuit == "orthogonal" else 0.0)


def pursuit_traffic(dictionary: DictionaryShape, job: Job) -> float:
    """Bytes of a token besides those of the products."""
    k = job.active(dictionary)
    if dictionary.pursuit is None:
        return 0.0
    moved = _FLOAT_BYTES * k * (_ROUND_PASSES * dictionary.width + _CHOSEN_PASSES * job.d)
    if dictionary.pursuit == "orthogonal":
        # Rows chosen so far are read three times a round, in double precision.
        moved += 3 * _DOUBLE_BYTES * job.d * k**2 / 2
    return moved


def overlap_bytes(dictionary: DictionaryShape, job: Job) -> int:
    """Bytes of all latents' overlaps, where they are held."""
    return _FLOAT_BYTES * dictionary.width**2 * holds_overlaps(dictionary, job)
