"""A micro-benchmark of this machine: what its products, memory, disk and a real step reach."""

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from scipy.special import ndtri

from modelassay.activations.statistics import Moments
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import JumpReLU
from modelassay.fitting.forecast_block import TimedBlock
from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_disk import disk_rates, free_bytes
from modelassay.fitting.forecast_hardware import Hardware
from modelassay.fitting.forecast_job import Job, Precision
from modelassay.fitting.forecast_time import forward_seconds, step_terms
from modelassay.fitting.learners import CHUNK_TOKENS, learners_of
from modelassay.fitting.options import TrainingOptions
from modelassay.fitting.plan import Plan
from modelassay.subjects.site import Site

RecipeOfWidth = Callable[[int], Recipe]
"""Makes the recipe of a job at another width."""

_MOST_FLOPS = {"cpu": 1e10}  # of a product that is timed: some 0.1 s on one core (ours)
_MOST_FLOPS_ELSEWHERE = 1e12
_MOST_ENTRIES = 2**26  # of a matrix that is timed (ours): 256 MB in float32
_MOST_ROWS = 2048  # tokens of the timed step (ours)
_MOST_CONTEXTS = 32  # that the model reads at a time
_COPIED_ENTRIES = 2**25  # well beyond any cache
_REPEATS = 5
_WARM_UPS = 2
_SMALL = 8  # d and tokens of the step that shows the fixed costs


@dataclass(frozen=True, kw_only=True, slots=True)
class _StepTime:
    """A real step's time, beside what its product and the cost model take."""

    seconds: float
    product_seconds: float
    dictionary: DictionaryShape
    rows: int


def measure_hardware(
    job: Job, recipe_of_width: RecipeOfWidth, *, device: str, folder: Path, seed: int = 0
) -> Hardware:
    """Measure this machine at the shapes of a job, in some seconds.

    Dense products of the encoder's shape in float32 and bfloat16; copying; writing and reading a
    file; the trainer's own step, and a transformer block's forward pass, at the job's sizes or
    the largest that are quick. A step's and a block's time over what the cost model says of them
    become factors of the forecast.

    Args:
        job: the run that the machine is measured for.
        recipe_of_width: the run's recipe, at another width.
        device: what computes.
        folder: the disk of this folder, or of its nearest existing parent, is measured.
        seed: of the random numbers that are computed with.

    Raises:
        StorageError: if the disk is full or the place may not be written.
    """
    where = torch.device(device)
    write, read = disk_rates(folder)
    raw = Hardware(
        name=_name(where),
        origin="measured",
        product_flops=_product_rates(job, where, seed),
        memory_bandwidth=_bandwidth(where),
        memory_bytes=_memory_bytes(where),
        disk_write=write,
        disk_read=read,
        disk_free_bytes=free_bytes(folder),
        workspace_rows=_workspace_rows(where),
    )
    recipe = recipe_of_width(max(dictionary.width for dictionary in job.dictionaries))
    small = recipe_of_width(_granule(recipe))
    options = TrainingOptions(optimizer=job.optimizer)
    fixed = _step(small, _narrow(small), _SMALL, where, seed, options)
    raw = replace(raw, fixed_seconds=fixed.seconds)
    timed = recipe_of_width(_timed_width(job, recipe, where))
    step = _step(timed, job.d, min(job.batch_tokens, _MOST_ROWS), where, seed, options)
    return replace(
        raw,
        step_factor=_step_factor(step, job, raw),
        step_units=step.seconds / step.product_seconds,
        forward_factor=_forward_factor(job, raw, where, seed),
    )


def _product_rates(job: Job, where: torch.device, seed: int) -> dict[Precision, float]:
    """FLOP/s of `[tokens, d] x [d, width]`, cut to what is quick."""
    rows = _workspace_rows(where) or job.batch_tokens
    width = max(dictionary.width for dictionary in job.dictionaries)
    columns = max(1, min(width, int(_most_flops(where) / (2 * rows * job.d))))
    columns = min(columns, max(1, _MOST_ENTRIES // max(job.d, rows)))
    dtypes: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    rates: dict[Precision, float] = {}
    for precision, dtype in dtypes.items():
        left, right = (
            torch.randn(shape, generator=derived(seed, "product")).to(where, dtype)
            for shape in ((rows, job.d), (job.d, columns))
        )
        out = torch.empty(rows, columns, device=where, dtype=dtype)
        seconds = _seconds(partial(torch.mm, left, right, out=out), where)
        rates[precision] = 2 * rows * job.d * columns / seconds
    return rates


def _bandwidth(where: torch.device) -> float:
    """Bytes/s of a copy, reading and writing together."""
    source, target = torch.zeros(2, _COPIED_ENTRIES, device=where).unbind()
    return 2 * source.nbytes / _seconds(partial(target.copy_, source), where)


def _narrow(recipe: Recipe) -> int:
    """The width of few activations, in which the rounds of a pursuit can still be made."""
    shape = DictionaryShape.of(recipe)
    return max(_SMALL, math.ceil(shape.active or 1)) if shape.pursuit else _SMALL


def _step(
    recipe: Recipe, d: int, rows: int, where: torch.device, seed: int, options: TrainingOptions
) -> _StepTime:
    """The trainer's own step on random activations, and the product of its encoder."""
    batch = torch.randn(rows, d, generator=derived(seed, "activations"))
    shape = replace(DictionaryShape.of(recipe), revives=False)  # no latent is dead as yet
    plan = Plan.of(
        [_settled(recipe)],
        site=Site.parse("resid_post.0"),
        tokens=100 * rows,
        batch_tokens=rows,
        learning_rate=1e-4,
        seed=seed,
        options=options,
    )
    drawn = derived(seed, "sample")
    (learner,) = learners_of(
        plan, Moments.of(batch), 1.0, where, draw=lambda n: torch.randn(n, d, generator=drawn)
    )
    batch = batch.to(where)
    weight = learner.dictionary.W_enc.detach()
    product = torch.empty(rows, recipe.width, device=where)
    return _StepTime(
        seconds=_seconds(partial(learner.step, batch, 50), where),
        product_seconds=_seconds(partial(torch.mm, batch, weight, out=product), where),
        dictionary=shape,
        rows=rows,
    )


def _settled(recipe: Recipe) -> Recipe:
    """A recipe that starts as sparse as it is to end, for standard normal pre-activations."""
    if not isinstance(recipe, JumpReLU):
        return recipe
    bound = float(ndtri(1 - recipe.target_l0 / recipe.width))
    return replace(recipe, initial_threshold=max(0.0, bound))


def _step_factor(step: _StepTime, job: Job, raw: Hardware) -> float:
    """The real step's time over the modelled one's, fixed costs taken from both."""
    same = replace(job, precision="float32", dictionaries=(step.dictionary,), initial_k=None)
    terms = step_terms(step.dictionary, same, raw, rows=step.rows)
    modelled = sum(term.seconds for term in terms if term.kind != "fixed")
    # Where the fixed costs are all there is, their variation must not make the rest negative.
    return max(step.seconds - raw.fixed_seconds, 0.1 * step.seconds) / modelled


def _forward_factor(job: Job, raw: Hardware, where: torch.device, seed: int) -> float:
    """A block's real time over the modelled one's."""
    dtype = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    block = TimedBlock(job.model, derived(seed, "block"), where, dtype[job.dtype])
    model = replace(job.model, layers=1, block_parameters=block.parameters)
    context = min(job.context_tokens, int(math.sqrt(_MOST_ENTRIES / model.heads)))
    same = replace(job, model=model, blocks_run=1, context_tokens=context)
    per_context = context * sum(term.seconds for term in forward_seconds(same, raw))
    contexts = max(
        1, min(_MOST_CONTEXTS, int(_most_flops(where) / 10 / (context * block.parameters)))
    )
    resid = torch.randn(contexts, context, job.d, generator=derived(seed, "residual"))
    resid = resid.to(where, dtype[job.dtype])
    with torch.no_grad():
        return _seconds(partial(block, resid), where) / (contexts * per_context)


def _granule(recipe: Recipe) -> int:
    """Widths that every kind of dictionary can have are multiples of it."""
    active = DictionaryShape.of(recipe).active
    return 16 * max(1, math.ceil(active or 1))


def _timed_width(job: Job, recipe: Recipe, where: torch.device) -> int:
    """The width itself, or the largest that is quick."""
    rows = min(job.batch_tokens, _MOST_ROWS)
    shape = DictionaryShape.of(recipe)
    rows *= 1 + math.ceil(shape.active or 0) if shape.pursuit else 1
    quick = int(min(_most_flops(where) / (2 * rows * job.d), _MOST_ENTRIES / job.d))
    granule = _granule(recipe)
    return recipe.width if recipe.width <= quick else max(granule, quick // granule * granule)


def _seconds(work: Callable[[], object], where: torch.device) -> float:
    """Median wall-clock time of a call."""
    times: list[float] = []
    for _ in range(_WARM_UPS + _REPEATS):
        _wait(where)
        begin = time.perf_counter()
        work()
        _wait(where)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[_WARM_UPS:])


def _wait(where: torch.device) -> None:
    if where.type != "cpu":
        torch.accelerator.synchronize(where)


def _most_flops(where: torch.device) -> float:
    return _MOST_FLOPS.get(where.type, _MOST_FLOPS_ELSEWHERE)


def _workspace_rows(where: torch.device) -> int | None:
    return CHUNK_TOKENS if where.type == "cpu" else None


def _name(where: torch.device) -> str:
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    threads = torch.get_num_threads()
    return f"this machine ({where}, {threads} thread{'s' * (threads > 1)})"


def _memory_bytes(where: torch.device) -> int:
    """Of the device; of the host where the device shares its memory."""
    if where.type == "cuda":
        return torch.cuda.get_device_properties(where).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
