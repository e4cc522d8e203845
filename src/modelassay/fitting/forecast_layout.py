"""How many devices a run needs: for its memory, and to be done in time."""

from collections.abc import Iterator

from modelassay.fitting.forecast_costs import Memory, memory
from modelassay.fitting.forecast_hardware import Hardware
from modelassay.fitting.forecast_job import Job
from modelassay.fitting.forecast_time import Layout, hours, run_terms

USABLE_MEMORY = 0.9
"""Share of a device's memory that may be planned for (ours): allocators fragment."""
_MOST_SHARDS = 2**10  # where the search ends (ours)
_MOST_DEVICES = 2**14
_WORTH_DOUBLING = 0.9  # twice the devices must take less than this share of the time (ours)


def device_memory(job: Job, hardware: Hardware, layout: Layout, *, streamed: bool) -> Memory:
    """Bytes on each device of a layout."""
    rows = layout.rows(job)
    # The CPU's workspace has a fixed number of rows, however small the batch.
    workspace = rows if hardware.workspace_rows is None else hardware.workspace_rows
    return memory(
        job,
        shards=layout.shards,
        batch_rows=rows,
        workspace_rows=workspace,
        streamed=streamed,
    )


def fits(job: Job, hardware: Hardware, layout: Layout, *, streamed: bool) -> bool:
    """Whether each device holds its part."""
    needed = device_memory(job, hardware, layout, streamed=streamed).total
    return needed <= USABLE_MEMORY * hardware.memory_bytes


def choose_layout(
    job: Job, hardware: Hardware, *, within_hours: float | None, streamed: bool
) -> Layout | None:
    """The fewest devices, a power of two, that hold the run and are done in time.

    Of the ways to spread latents and tokens over as many devices, the fastest. If none is done in
    time, the number from which on twice as many would save less than a tenth.

    Args:
        job: the run.
        hardware: one device.
        within_hours: wall-clock time that is wished for; None for the fewest devices that fit.
        streamed: whether the model runs on the same devices.

    Returns:
        None if no number of shards brings the run into a device's memory.
    """
    best: tuple[float, Layout] | None = None
    devices = 1
    while devices <= _MOST_DEVICES:
        found = [
            (hours(run_terms(job, hardware, layout, streamed=streamed)), layout)
            for layout in _layouts(job, devices)
            if fits(job, hardware, layout, streamed=streamed)
        ]
        if found:
            fastest = min(found, key=lambda pair: pair[0])
            if within_hours is None or fastest[0] <= within_hours:
                return fastest[1]
            if best is None or fastest[0] < _WORTH_DOUBLING * best[0]:
                best = fastest
        devices *= 2
    return None if best is None else best[1]


def _layouts(job: Job, devices: int) -> Iterator[Layout]:
    """The ways to share work between some power of two of devices."""
    narrowest = min(dictionary.width for dictionary in job.dictionaries)
    most = min(devices, narrowest, _MOST_SHARDS)
    if job.optimizer == "muon" or not all(part.divisible for part in job.dictionaries):
        most = 1  # such latents stay together
    shards = 1
    while shards <= most:
        if devices // shards <= job.batch_tokens:
            yield Layout(shards=shards, replicas=devices // shards)
        shards *= 2
