"""FLOPs and bytes of a run, in closed form.

Symbols: d is the width of the activations, F that of a dictionary, k its active latents a token,
B the tokens of a step, P trained parameters. A product of [a, b] and [b, c] costs 2abc FLOPs.
Numbers of passes over memory are counted from the trainer's own step (ours).
"""

from dataclasses import dataclass, fields

from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_job import DTYPE_BYTES, Job
from modelassay.fitting.forecast_pursuit import (
    overlap_bytes,
    pursuit_flops,
    pursuit_products,
    pursuit_traffic,
)
from modelassay.fitting.forecast_updates import (
    mixing_flops,
    mixing_traffic,
    moment_bytes,
    optimizer_passes,
    orthogonal_flops,
)

FLOAT_BYTES = 4
INDEX_BYTES = 8
DENSE_PRODUCTS = 5
"""Of a dense step: encoder, decoder, and the gradients of values, encoder and decoder."""
_UPDATE_FLOPS = 20  # a parameter: Adam 12, clipping 3, decoder rows at length 1 about 5
_GRADIENT_PASSES = 4  # over P: gradient written 1, clipped 3
_UNIT_PASSES = 8  # over the decoder: gradient's part along the rows 5, normalising 3
_ROUNDING_PASSES = 1.5  # over the encoder, for its copy in bfloat16: 4 bytes read, 2 written
_CENTRE_PASSES = 1  # over the encoder, for the gradient of b_dec through the centre
_REVIVAL_PASSES = 8  # over d F: two gradients of all latents made of those of the dead, added up
_SELECTION_PASSES = 2  # over [B, F]: written by the product, read by the selection
_DENSE_PASSES = 12  # over [B, F], in a dense step
_ROW_PASSES = 4  # over k rows of length d a token: decoding, and three gradients
_VECTOR_PASSES = 12  # over [B, d]: scaled, centred, reconstructed, compared, differentiated
_PREFIX_PASSES = 5  # over [B, d], for every nested reconstruction
_BLOCK_PASSES = 30  # over [B, d] of a transformer block: norms, projections, sums, hidden layer
_PATTERN_PASSES = 6  # over a head's attention pattern: scores, scale, mask, softmax, weighted sum
_FORWARD_CONTEXTS = 32  # that the model reads at a time, as `stream_harvest` does


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """Of a whole run."""

    model: float
    """Forward passes up to the site, each distinct token once (times the passes if streamed)."""
    encoder: float
    """One dense product a step and dictionary."""
    rest: float
    """All else of the dictionaries' steps."""

    @property
    def total(self) -> float:
        """Of training."""
        return self.model + self.encoder + self.rest


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes on one device. Weights to workspace are exact, the last two estimated."""

    weights: int
    gradients: int
    """Of what is trained; and what is made of it in every step, with the gradient of that."""
    moments: int
    """Adam's two; Signum's one; Muon's one of matrices and Adam's of the rest."""
    silence: int
    """Tokens since each latent last fired."""
    workspace: int
    """Pre-activations, shared by all dictionaries."""
    batch: int
    """Activations, codes and temporary tensors of a step."""
    model: int
    """The model's weights and a forward pass."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(getattr(self, field.name) for field in fields(self))


def model_flops(job: Job) -> float:
    """FLOPs of the model for one token, up to the site.

    ``(2 N + 4 T a) L' / L`` with N the entries of the L blocks' matrices, T the context's tokens
    and a the width of all heads together, summed over layers; L' blocks run. Attention is counted
    over the whole context: patterns are computed densely and masked.
    """
    attention = 4 * job.context_tokens * job.model.attention_width * job.model.layers
    return (2 * job.model.block_parameters + attention) * job.blocks_run / job.model.layers


def dense_products(dictionary: DictionaryShape, job: Job) -> float:
    """Dense products of a step, in units of the encoder's: ``2 B d F``.

    One for a sparse step, AuxK's with the dead latents, and a pursuit's rounds; five for a dense
    one, less the decoder's gradient where it is frozen.
    """
    if dictionary.active is None:
        return float(DENSE_PRODUCTS - dictionary.frozen_decoder)
    return 1 + job.dead_share * dictionary.revives + pursuit_products(dictionary, job)


def sparse_flops(dictionary: DictionaryShape, job: Job) -> float:
    """FLOPs of a token in a sparse step besides the dense products: ``8 k d``, and AuxK's.

    Decoding, the gradient of the values and of both weights cost ``2 k d`` each; AuxK does the
    same with ``min(d / 2, dead)`` latents.
    """
    if dictionary.active is None:
        return 0.0
    parts = _ROW_PASSES - dictionary.frozen_decoder
    rows = 2 * parts * job.d * (job.active(dictionary) + _revived(dictionary, job))
    return rows + pursuit_flops(dictionary, job)


def flops(job: Job, *, streamed: bool) -> Flops:
    """FLOPs of a run.

    Args:
        job: the run.
        streamed: whether the model runs anew in every pass.
    """
    through_model = job.tokens if streamed else job.distinct_tokens
    seen = job.steps * job.batch_tokens
    encoder = sum(2 * job.d * dictionary.width for dictionary in job.dictionaries)
    rest = sum(
        2 * job.d * dictionary.width * (dense_products(dictionary, job) - 1)
        + sparse_flops(dictionary, job)
        for dictionary in job.dictionaries
    )
    updates = sum(
        _UPDATE_FLOPS * part.trained_parameters(job.d)
        + orthogonal_flops(part, job)
        + mixing_flops(part, job)
        for part in job.dictionaries
    )
    return Flops(
        model=through_model * model_flops(job),
        encoder=float(seen * encoder),
        rest=float(seen * rest + job.steps * updates),
    )


def token_traffic(dictionary: DictionaryShape, job: Job) -> float:
    """Bytes that a step moves for each token, besides its dense products' own."""
    vectors = (_VECTOR_PASSES + _PREFIX_PASSES * dictionary.prefixes) * job.d
    if dictionary.active is None:
        return float(FLOAT_BYTES * (_DENSE_PASSES * dictionary.width + vectors))
    rows = _ROW_PASSES * job.d * (job.active(dictionary) + _revived(dictionary, job))
    chosen_from = dictionary.width * (1 + job.dead_share * dictionary.revives)
    chosen_from /= 1 + _in_half(job)
    pursued = pursuit_traffic(dictionary, job)
    return FLOAT_BYTES * (_SELECTION_PASSES * chosen_from + rows + vectors) + pursued


def update_traffic(dictionary: DictionaryShape, job: Job) -> float:
    """Bytes that a step moves for the weights, however many tokens it has."""
    matrix = job.d * dictionary.width
    passes = _CENTRE_PASSES + _UNIT_PASSES * dictionary.unit_decoder
    passes += _ROUNDING_PASSES * _in_half(job)
    if dictionary.revives and job.dead_share > 0:
        passes += _REVIVAL_PASSES
    trained = _GRADIENT_PASSES * dictionary.trained_parameters(job.d)
    trained += optimizer_passes(dictionary, job)
    return FLOAT_BYTES * (trained + passes * matrix) + mixing_traffic(dictionary, job)


def model_traffic(job: Job) -> float:
    """Bytes that the model's forward pass moves for each token, besides its products' own."""
    patterns = _PATTERN_PASSES * job.model.heads * job.context_tokens
    block = _BLOCK_PASSES * job.d + patterns
    return float(DTYPE_BYTES[job.dtype] * block * job.blocks_run)


def memory(
    job: Job, *, shards: int, batch_rows: int, workspace_rows: int, streamed: bool
) -> Memory:
    """Bytes on each device.

    Args:
        job: the run.
        shards: devices that a dictionary's latents are spread over.
        batch_rows: tokens of a step that the device sees.
        workspace_rows: of those, pre-activations held at once.
        streamed: whether the model lies on the same device.
    """
    parts = [dictionary.shard(shards) for dictionary in job.dictionaries]
    trained = sum(part.trained_parameters(job.d) for part in parts)
    return Memory(
        weights=FLOAT_BYTES * sum(part.parameters(job.d) for part in parts),
        gradients=FLOAT_BYTES * (trained + sum(part.made_entries(job.d) for part in parts)),
        moments=sum(moment_bytes(part, job) for part in parts),
        silence=sum(INDEX_BYTES * (part.width + 1) for part in parts),
        workspace=FLOAT_BYTES * workspace_rows * max(part.width for part in parts),
        batch=max(_batch_bytes(part, job, batch_rows) for part in parts),
        model=_model_bytes(job) if streamed else 0,
    )


def checkpoint_bytes(job: Job) -> int:
    """Bytes of a checkpoint, but for headers and step counts.

    ``4 P``, the optimiser's moments (Adam's ``8 P``) and ``8 F`` a dictionary; candidates of
    mixtures are kept too.
    """
    return sum(
        FLOAT_BYTES * (dictionary.trained_parameters(job.d) + dictionary.candidates * job.d)
        + moment_bytes(dictionary, job)
        + INDEX_BYTES * dictionary.width
        for dictionary in job.dictionaries
    )


def stored_bytes(job: Job) -> int:
    """Bytes of the activations on disk: d numbers for each distinct token."""
    return job.d * DTYPE_BYTES[job.dtype] * job.distinct_tokens


def _in_half(job: Job) -> bool:
    """Whether the encoder's product is taken in bfloat16, of a copy of the encoder."""
    return job.precision == "bfloat16"


def _revived(dictionary: DictionaryShape, job: Job) -> float:
    """Latents a token by which AuxK reconstructs what is left."""
    dead = job.dead_share * dictionary.width * dictionary.revives
    return min(job.d / 2, dead)


def _batch_bytes(part: DictionaryShape, job: Job, rows: int) -> int:
    vectors = FLOAT_BYTES * rows * job.d * (_VECTOR_PASSES + part.prefixes)
    vectors += FLOAT_BYTES // 2 * job.d * part.width * _in_half(job)  # the encoder's copy
    if part.active is None:
        return vectors + 4 * FLOAT_BYTES * rows * part.width  # values, their gradients, the loss's
    # Values, latents, their order and the tokens', each with what sorting needs besides.
    entries = int(rows * (job.most_active(part) + _revived(part, job)))
    vectors += overlap_bytes(part, job)
    codes = entries * 2 * (2 * FLOAT_BYTES + 3 * INDEX_BYTES)
    revival = FLOAT_BYTES * job.d * part.width if part.revives and job.dead_share > 0 else 0
    return vectors + codes + revival


def _model_bytes(job: Job) -> int:
    tokens = _FORWARD_CONTEXTS * job.context_tokens
    # A block at a time: the residual stream, a hidden layer of four times it, and the patterns.
    pass_entries = tokens * (10 * job.d + 2 * job.model.heads * job.context_tokens)
    return DTYPE_BYTES[job.dtype] * (job.model.parameters + pass_entries)
