"""Seconds of a run on given hardware, term by term, and what devices tell each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from modelassay.fitting.forecast_costs import (
    FLOAT_BYTES,
    INDEX_BYTES,
    dense_products,
    model_flops,
    model_traffic,
    stored_bytes,
    token_traffic,
    update_traffic,
)
from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_hardware import Hardware
from modelassay.fitting.forecast_job import DTYPE_BYTES, Job, Precision
from modelassay.fitting.forecast_updates import mixing_flops, orthogonal_flops

Kind = Literal["compute", "bandwidth", "communication", "disk", "fixed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How devices share the work: `shards * replicas` of them."""

    shards: int = 1
    """Devices that a dictionary's latents are spread over; they see the same tokens."""
    replicas: int = 1
    """Groups of such devices that see different tokens."""

    @property
    def devices(self) -> int:
        """In all."""
        return self.shards * self.replicas

    def rows(self, job: Job) -> int:
        """Tokens of a step that each device sees, at most."""
        return -(-job.batch_tokens // self.replicas)


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One part of a run's time."""

    name: str
    kind: Kind
    """What bounds it."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Communication:
    """Bytes that each device sends in a step."""

    candidates: float
    """From which the largest latents are chosen: k values a token to every other shard, or two
    histograms of all devices where the tokens of a batch are compared."""
    reconstruction: float
    """The sum of the shards' parts of it: ``2 (S - 1) / S`` times its size."""
    gradients: float
    """Their mean over replicas: ``2 (R - 1) / R`` times their size."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.candidates + self.reconstruction + self.gradients


def communication(job: Job, layout: Layout) -> Communication:
    """What devices send in a step, by ring algorithms, over all dictionaries."""
    shards, replicas, rows = layout.shards, layout.replicas, layout.rows(job)
    outputs = sum(1 + dictionary.prefixes for dictionary in job.dictionaries)
    trained = sum(part.shard(shards).trained_parameters(job.d) for part in job.dictionaries)
    return Communication(
        candidates=sum((_candidates(part, layout, rows) for part in job.dictionaries), 0.0),
        reconstruction=FLOAT_BYTES * 2 * (shards - 1) / shards * rows * job.d * outputs,
        gradients=FLOAT_BYTES * 2 * (replicas - 1) / replicas * trained,
    )


def _candidates(dictionary: DictionaryShape, layout: Layout, rows: int) -> float:
    if dictionary.active is None:
        return 0.0
    if dictionary.compares_tokens:
        # A value's bits are counted in two halves.
        return 2 * INDEX_BYTES * 2**16 * 2 * (layout.devices - 1) / layout.devices
    return FLOAT_BYTES * (layout.shards - 1) * rows * dictionary.active


def step_terms(
    dictionary: DictionaryShape, job: Job, hardware: Hardware, *, rows: int
) -> tuple[Term, ...]:
    """Seconds of one step of one dictionary on one device.

    Products take their FLOPs over the rate of dense products, all else its bytes over the
    memory's bandwidth, both times `Hardware.step_factor`; nothing overlaps.

    Args:
        dictionary: it, or the part of it that the device holds.
        job: the run.
        hardware: the device.
        rows: tokens that it sees.
    """
    factor = hardware.step_factor
    # A pursuit's values are no pre-activations: it is made in float32 throughout.
    precision = "float32" if dictionary.pursuit else job.precision
    product = 2 * rows * job.d * dictionary.width / hardware.products(precision)
    moved = factor / hardware.memory_bandwidth
    here = replace(job, batch_tokens=rows)
    others = dense_products(dictionary, here) - 1
    update = orthogonal_flops(dictionary, job) / hardware.products(_precision_of_muon(hardware))
    update += mixing_flops(dictionary, job) / hardware.products("float32")
    seconds: list[tuple[str, Kind, float]] = [
        ("encoder products", "compute", factor * product),
        ("other dense products", "compute", factor * product * others),
        ("selection and active rows", "bandwidth", moved * rows * token_traffic(dictionary, here)),
        ("products of the update", "compute", factor * update),
        ("optimiser and weights", "bandwidth", moved * update_traffic(dictionary, job)),
        ("fixed costs of steps", "fixed", hardware.fixed_seconds),
    ]
    return tuple(Term(name=name, kind=kind, seconds=value) for name, kind, value in seconds)


def forward_seconds(job: Job, hardware: Hardware) -> tuple[Term, ...]:
    """Seconds of the model for one token up to the site: products, and all else."""
    factor = hardware.forward_factor
    products = model_flops(job) / hardware.products(model_precision(job, hardware))
    return (
        Term(name="model's products", kind="compute", seconds=factor * products),
        Term(
            name="model's activations",
            kind="bandwidth",
            seconds=factor * model_traffic(job) / hardware.memory_bandwidth,
        ),
    )


def run_terms(job: Job, hardware: Hardware, layout: Layout, *, streamed: bool) -> tuple[Term, ...]:
    """Seconds of a whole run, those of nothing left out.

    Replicas share the tokens and shards the latents. The model runs on every device for the
    tokens that the device sees.
    """
    through_model = (job.tokens if streamed else job.distinct_tokens) / layout.replicas
    terms = [_times(term, through_model) for term in forward_seconds(job, hardware)]
    if not streamed:
        read = job.tokens * job.d * DTYPE_BYTES[job.dtype] / hardware.disk_read
        write = stored_bytes(job) / hardware.disk_write
        terms.append(Term(name="activations to and from disk", kind="disk", seconds=read + write))
    steps: list[Term] = []
    for dictionary in job.dictionaries:
        part = dictionary.shard(layout.shards)
        steps += step_terms(part, job, hardware, rows=layout.rows(job))
    terms += [_times(term, float(job.steps)) for term in _added_up(steps)]
    if hardware.link_bandwidth is not None:
        sent = communication(job, layout).total / hardware.link_bandwidth
        terms.append(Term(name="between devices", kind="communication", seconds=job.steps * sent))
    return tuple(term for term in terms if term.seconds > 0)


def hours(terms: Sequence[Term]) -> float:
    """The sum of terms."""
    return sum((term.seconds for term in terms), 0.0) / 3600


def model_precision(job: Job, hardware: Hardware) -> Precision:
    """Of the model's products: half precisions share a rate, which every device is given."""
    half = job.dtype != "float32" and "bfloat16" in hardware.product_flops
    return "bfloat16" if half else "float32"


def _precision_of_muon(hardware: Hardware) -> Precision:
    """`torch.optim.Muon` makes its products in bfloat16."""
    return "bfloat16" if "bfloat16" in hardware.product_flops else "float32"


def _times(term: Term, count: float) -> Term:
    return Term(name=term.name, kind=term.kind, seconds=count * term.seconds)


def _added_up(terms: Sequence[Term]) -> list[Term]:
    """One term for each name, in the order of their first."""
    names: dict[str, Kind] = {term.name: term.kind for term in terms}
    return [
        Term(name=name, kind=kind, seconds=sum(t.seconds for t in terms if t.name == name))
        for name, kind in names.items()
    ]
