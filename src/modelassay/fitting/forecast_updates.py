"""What optimisers, and decoders made of mixtures, cost a step; symbols as in `forecast_costs`."""

from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_job import Job

_ADAM_PASSES = 7  # over P: reads 4, writes 3
_SIGNUM_PASSES = 10  # momentum read and written, its sign made and masked, the weight moved
_MUON_PASSES = 8  # momentum, Nesterov's mean, a copy in bfloat16, the update
_ITERATIONS = 5  # of Newton and Schulz, as in `torch.optim.Muon`
_ITERATION_PASSES = 3  # over the matrix, in bfloat16: half as many bytes
_MIXING_PRODUCTS = 3  # with the candidates: rows, and the gradients of weights (both ways, ours)
_MIXING_PASSES = 8  # over W: clamped, summed, divided
_FLOAT_BYTES = 4


def moment_bytes(dictionary: DictionaryShape, job: Job) -> int:
    """Bytes of what the optimiser remembers: of every matrix entry one or two numbers."""
    matrices = sum(rows * columns for rows, columns in dictionary.matrices(job.d))
    vectors = dictionary.vectors(job.d)
    match job.optimizer:
        case "adam":
            return 2 * _FLOAT_BYTES * (matrices + vectors)
        case "signum":
            return _FLOAT_BYTES * (matrices + vectors)
        case "muon":
            return _FLOAT_BYTES * (matrices + 2 * vectors)


def optimizer_passes(dictionary: DictionaryShape, job: Job) -> float:
    """Numbers that an update reads and writes."""
    trained = dictionary.trained_parameters(job.d)
    match job.optimizer:
        case "adam":
            return float(_ADAM_PASSES * trained)
        case "signum":
            return float(_SIGNUM_PASSES * trained)
        case "muon":
            matrices = trained - dictionary.vectors(job.d)
            passes = _MUON_PASSES + _ITERATIONS * _ITERATION_PASSES / 2
            return passes * matrices + _ADAM_PASSES * dictionary.vectors(job.d)


def orthogonal_flops(dictionary: DictionaryShape, job: Job) -> float:
    """FLOPs of Muon's update: ``5 (4 a² b + 2 a³)`` for a matrix of sides a <= b.

    Each iteration makes ``A = X X^T``, ``A²`` and ``(β A + γ A²) X``.
    """
    if job.optimizer != "muon":
        return 0.0
    sides = [sorted(matrix) for matrix in dictionary.matrices(job.d)]
    return float(_ITERATIONS * sum(4 * a**2 * b + 2 * a**3 for a, b in sides))


def mixing_flops(dictionary: DictionaryShape, job: Job) -> float:
    """FLOPs of a decoder of mixtures: rows ``W C``, and W's gradient, of C candidates: ``2 F C d``
    each. The rows are made anew after the update, too."""
    return float(_MIXING_PRODUCTS * 2 * dictionary.width * dictionary.candidates * job.d)


def mixing_traffic(dictionary: DictionaryShape, job: Job) -> float:
    """Bytes that bring mixtures back to weights of sum 1, besides the optimiser's."""
    del job
    return float(_FLOAT_BYTES * _MIXING_PASSES * dictionary.width * dictionary.candidates)
