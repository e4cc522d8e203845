"""What a device can do: measured, or taken from its maker's data sheet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.fitting.forecast_job import Precision

DEFAULT_SHARE = 0.5
"""Share of a data sheet's peak that is assumed where nothing was measured (ours)."""
_LAUNCHES_SECONDS = 1e-3  # a step's fixed cost on an accelerator: some 100 launches (ours)
_DISK_BYTES = 2e9  # a second, an NVMe disk (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """One device: what it attains, not what it is sold for."""

    name: str
    origin: Literal["measured", "assumed"]
    product_flops: Mapping[Precision, float]
    """FLOP/s of a dense product in each precision that it has."""
    memory_bandwidth: float
    """Bytes/s, reading and writing together."""
    memory_bytes: int
    disk_write: float
    """Bytes/s."""
    disk_read: float
    """Bytes/s."""
    disk_free_bytes: int | None = None
    link_bandwidth: float | None = None
    """Bytes/s that a device sends to another; None if it is not known."""
    workspace_rows: int | None = None
    """Tokens whose pre-activations are held at once; None for all of a batch."""
    fixed_seconds: float = 0.0
    """Of a dictionary's step, however small it is."""
    step_factor: float = 1.0
    """A real step's time over what the products and bytes alone would take."""
    step_units: float | None = None
    """A real step's time over that of its encoder product; None if it was not measured."""
    forward_factor: float = 1.0
    """The same for a transformer block's forward pass."""

    def products(self, precision: Precision) -> float:
        """FLOP/s of a dense product.

        Raises:
            UnknownNameError: if the device has no such products.
        """
        if precision not in self.product_flops:
            raise UnknownNameError(
                f"The precision of products on {self.name}", precision, self.product_flops
            )
        return self.product_flops[precision]

    @property
    def fastest(self) -> Precision:
        """The precision with the highest rate."""
        return max(self.product_flops, key=lambda precision: self.product_flops[precision])


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSheet:
    """Peaks as the maker states them: dense, without structured sparsity."""

    title: str
    float32: float
    """FLOP/s."""
    tf32: float
    bfloat16: float
    memory_bandwidth: float
    """Bytes/s."""
    memory_bytes: int
    link_bandwidth: float
    """Bytes/s in one direction: half of what is stated for both."""


DATA_SHEETS: dict[str, DataSheet] = {
    "a100": DataSheet(
        title="NVIDIA A100 SXM 80 GB",
        float32=19.5e12,
        tf32=156e12,
        bfloat16=312e12,
        memory_bandwidth=2.039e12,
        memory_bytes=80 * 10**9,
        link_bandwidth=300e9,
    ),
    "h100": DataSheet(
        title="NVIDIA H100 SXM 80 GB",
        float32=67e12,
        tf32=494.5e12,
        bfloat16=989.5e12,
        memory_bandwidth=3.35e12,
        memory_bytes=80 * 10**9,
        link_bandwidth=450e9,
    ),
    "h200": DataSheet(
        title="NVIDIA H200 SXM 141 GB",
        float32=67e12,
        tf32=494.5e12,
        bfloat16=989.5e12,
        memory_bandwidth=4.8e12,
        memory_bytes=141 * 10**9,
        link_bandwidth=450e9,
    ),
}
"""By short name. Source: the products' data sheets; rates that are given with sparsity, halved."""


def named_hardware(name: str, *, share: float = DEFAULT_SHARE) -> Hardware:
    """A device by name, at an assumed share of its data sheet's peaks.

    Args:
        name: one of `DATA_SHEETS`.
        share: of every peak rate, above 0 and at most 1.

    Raises:
        UnknownNameError: if there is no data sheet of that name.
        ValueRangeError: if the share is not above 0 and at most 1.
    """
    if name not in DATA_SHEETS:
        raise UnknownNameError("Hardware", name, DATA_SHEETS)
    if not 0 < share <= 1:
        raise ValueRangeError(
            f"The share of peak must be above 0 and at most 1; got {share}. "
            f"Use about {DEFAULT_SHARE}."
        )
    sheet = DATA_SHEETS[name]
    return Hardware(
        name=sheet.title,
        origin="assumed",
        product_flops={
            "float32": share * sheet.float32,
            "tf32": share * sheet.tf32,
            "bfloat16": share * sheet.bfloat16,
        },
        memory_bandwidth=share * sheet.memory_bandwidth,
        memory_bytes=sheet.memory_bytes,
        disk_write=_DISK_BYTES,
        disk_read=_DISK_BYTES,
        link_bandwidth=share * sheet.link_bandwidth,
        fixed_seconds=_LAUNCHES_SECONDS,
    )
