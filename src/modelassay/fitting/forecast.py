"""`forecast`: what a run would take, before it is begun."""

from dataclasses import dataclass, replace

from modelassay.core.errors import ValueRangeError
from modelassay.fitting.forecast_costs import (
    Flops,
    Memory,
    checkpoint_bytes,
    flops,
    stored_bytes,
)
from modelassay.fitting.forecast_hardware import Hardware
from modelassay.fitting.forecast_job import DTYPE_BYTES, Job, Precision
from modelassay.fitting.forecast_layout import USABLE_MEMORY, choose_layout, device_memory
from modelassay.fitting.forecast_time import (
    Communication,
    Kind,
    Layout,
    Term,
    communication,
    forward_seconds,
    hours,
    model_precision,
    run_terms,
)

FEW_ROWS = 128
"""Tokens of a step on one device below which a dense product is slower than measured (ours)."""
_SLOWER = 1.2  # more than timings vary (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """Activations on disk against a model that runs anew in every pass."""

    activation_bytes: int
    """Of a store with the site's activations."""
    checkpoint_bytes: int
    """Of one checkpoint; while the next is written there are two."""
    stored_hours: float
    """Harvesting, writing, and reading in every pass, on one device."""
    streamed_hours: float
    """The model in every pass, on one device."""
    passes_to_pay: int | None
    """Passes, or runs, from which on a store is the cheaper one; None if it never is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What a run would take."""

    job: Job
    hardware: Hardware
    streamed: bool
    """Whether the model runs anew in every pass; otherwise activations are stored first."""
    fits: bool
    """Whether any number of shards brings it into a device's memory."""
    layout: Layout
    flops: Flops
    memory: Memory
    """On each device."""
    storage: Storage
    communication: Communication
    terms: tuple[Term, ...]
    warnings: tuple[str, ...]
    """One sentence each: what does not fit, and what would."""

    @property
    def hours(self) -> float:
        """From begin to end."""
        return hours(self.terms)

    @property
    def bound(self) -> Kind:
        """What most of the time is spent on."""
        kinds: dict[Kind, float] = {term.kind: 0.0 for term in self.terms}
        for term in self.terms:
            kinds[term.kind] += term.seconds
        return max(kinds, key=lambda kind: kinds[kind])


def forecast(
    job: Job,
    hardware: Hardware,
    *,
    within_hours: float | None = None,
    streamed: bool | None = None,
) -> Forecast:
    """What a run would take on some hardware.

    The layout is that of `choose_layout`: the fewest devices that hold the run and are done in
    time.

    Args:
        job: the run.
        hardware: one device; there may be as many as it takes.
        within_hours: wall-clock time that is wished for; None for one group of devices.
        streamed: whether the model runs anew in every pass; by default the faster way that the
            disk has space for.

    Raises:
        ValueRangeError: if `within_hours` is not above 0.
        UnknownNameError: if the hardware has no products of the job's precision.
    """
    if within_hours is not None and not within_hours > 0:
        raise ValueRangeError(
            f"within_hours must be above 0; got {within_hours}. Leave it out for one device."
        )
    storage = _storage(job, hardware)
    if streamed is None:
        free = hardware.disk_free_bytes
        has_space = free is None or storage.activation_bytes <= free
        streamed = not has_space or storage.streamed_hours <= storage.stored_hours
    chosen = choose_layout(job, hardware, within_hours=within_hours, streamed=streamed)
    layout = chosen or Layout()
    terms = run_terms(job, hardware, layout, streamed=streamed)
    result = Forecast(
        job=job,
        hardware=hardware,
        streamed=streamed,
        fits=chosen is not None,
        layout=layout,
        flops=flops(job, streamed=streamed),
        memory=device_memory(job, hardware, layout, streamed=streamed),
        storage=storage,
        communication=communication(job, layout),
        terms=terms,
        warnings=(),
    )
    return replace(result, warnings=tuple(_warnings(result, within_hours)))


def _storage(job: Job, hardware: Hardware) -> Storage:
    """A pass costs m hours of the model, or r of reading after m + w of making the store."""
    entry = job.d * DTYPE_BYTES[job.dtype]
    model = job.distinct_tokens * hours(forward_seconds(job, hardware))
    write = job.distinct_tokens * entry / hardware.disk_write / 3600
    read = job.distinct_tokens * entry / hardware.disk_read / 3600
    return Storage(
        activation_bytes=stored_bytes(job),
        checkpoint_bytes=checkpoint_bytes(job),
        stored_hours=model + write + job.passes * read,
        streamed_hours=job.passes * model,
        passes_to_pay=int((model + write) / (model - read)) + 1 if model > read else None,
    )


def _warnings(result: Forecast, within_hours: float | None) -> list[str]:
    """What the person who asked should know, most important first."""
    job, hardware, layout = result.job, result.hardware, result.layout
    found = [
        *_about_memory(result),
        *_about_time(result, within_hours),
        *_about_disk(result),
        *_about_precision(job, hardware),
    ]
    if layout.devices > 1 and hardware.link_bandwidth is None:
        found.append(
            f"The rate between devices of {hardware.name} is not known: "
            f"{result.communication.total:,.0f} bytes a step and device are left out of the hours. "
            "Give it with --link."
        )
    if hardware.origin == "assumed":
        found.append(
            f"The rates of {hardware.name} are assumed, not measured. On such a device, "
            "--hardware here --device cuda measures them."
        )
    return found


def _about_memory(result: Forecast) -> list[str]:
    usable = USABLE_MEMORY * result.hardware.memory_bytes
    if not result.fits:
        remedy = "Lower --batch-tokens"
        if result.streamed and result.memory.model > result.memory.batch:
            remedy = "Store the activations first (--store), so that the model is elsewhere"
        return [
            f"No number of shards brings the run into {usable:,.0f} bytes of a device: a batch "
            f"takes {result.memory.batch:,} and the model {result.memory.model:,}. {remedy}."
        ]
    alone = device_memory(result.job, result.hardware, Layout(), streamed=result.streamed)
    if alone.total <= usable:
        return []
    return [
        f"One device would have to hold {alone.total:,} bytes, and has {usable:,.0f} to use: the "
        f"latents are spread over {result.layout.shards}."
    ]


def _about_time(result: Forecast, within_hours: float | None) -> list[str]:
    job, layout = result.job, result.layout
    found: list[str] = []
    if within_hours is not None and result.fits and result.hours > within_hours:
        found.append(
            f"No number of devices that was tried is done within {within_hours:g} hours: "
            f"{layout.devices:,} take {result.hours:.3g}. Larger batches (--batch-tokens) make "
            "fewer steps."
        )
    if layout.replicas > 1 and layout.rows(job) < FEW_ROWS:
        found.append(
            f"Each device sees {layout.rows(job)} tokens of a step: products of so few rows are "
            "slower than counted here. Raise --batch-tokens."
        )
    return found


def _about_disk(result: Forecast) -> list[str]:
    free, storage = result.hardware.disk_free_bytes, result.storage
    if free is None:
        return []
    found: list[str] = []
    if storage.activation_bytes > free:
        found.append(
            f"A store of the activations takes {storage.activation_bytes:,} bytes, and the disk "
            f"has {free:,}. Stream them, or keep them in a smaller --dtype."
        )
    if 2 * storage.checkpoint_bytes > free:
        found.append(
            f"Two checkpoints take {2 * storage.checkpoint_bytes:,} bytes, and the disk has "
            f"{free:,}. Choose another --out."
        )
    return found


def _about_precision(job: Job, hardware: Hardware) -> list[str]:
    found: list[str] = []
    full = hardware.products("float32")
    chosen: dict[str, Precision] = {
        "--precision": job.precision,
        "--dtype": model_precision(job, hardware),
    }
    for option, precision in chosen.items():
        lost = full / hardware.products(precision)
        if lost > _SLOWER:
            found.append(
                f"Products in {precision} are {lost:.1f} times slower on {hardware.name} than in "
                f"float32: {option} float32 saves time."
            )
    return found
