"""How `modelassay plan` says what it found, for people."""

import io
import textwrap
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from modelassay.cli.plan_schemas import PlanHardware, PlanResult

_WIDTH = 96
_MEMORY = {
    "weights": "weights",
    "gradients": "gradients",
    "moments": "optimiser's moments",
    "silence": "silence of latents",
    "workspace": "pre-activations",
    "batch": "a batch and its codes (estimated)",
    "model": "the model (estimated)",
    "total": "total",
}
_FLOPS = {
    "model": "model's forward passes to the site",
    "encoder": "encoder products, one a step",
    "rest": "all else of the steps",
    "total": "total",
}
_SENT = {
    "candidates": "candidates for the largest latents",
    "reconstruction": "sum of reconstructions",
    "gradients": "mean of gradients",
    "total": "total",
}


def as_text(result: PlanResult) -> str:
    """The plan, for people."""
    parts = [
        _head(result),
        _hardware(result["hardware"]),
        _table(
            ["FLOPs of the run", ""],
            [[name, f"{result['flops'][key]:.3g}"] for key, name in _FLOPS.items()],
        ),
        _table(
            ["memory on each device", ""],
            [[name, in_bytes(result["memory"][key])] for key, name in _MEMORY.items()],
        ),
        _time(result),
    ]
    if result["devices"] > 1:
        sent = result["communication"]
        rows = [[name, in_bytes(sent[key])] for key, name in _SENT.items()]
        parts.append(_table(["sent by each device in a step", ""], rows))
    parts += [_devices(result), _storage(result)]
    parts += [_wrapped(f"Note: {warning}") for warning in result["warnings"]]
    return "\n\n".join(parts)


def in_bytes(number: int | float) -> str:
    """Bytes with three digits and a decimal unit."""
    return _with_unit(number, ["B", "kB", "MB", "GB", "TB", "PB"])


def in_hours(hours: float) -> str:
    """A duration in the unit that suits it."""
    if hours < 1 / 60:
        return f"{3600 * hours:.3g} s"
    if hours < 1:
        return f"{60 * hours:.3g} min"
    return f"{hours:.3g} h" if hours < 1000 else f"{hours / 24:,.0f} days"


def _with_unit(number: int | float, units: Sequence[str]) -> str:
    place = 0
    while number >= 999.5 and place < len(units) - 1:
        number /= 1000
        place += 1
    return f"{number:.3g} {units[place]}" if number < 1000 else f"{number:,.0f} {units[place]}"


def _head(result: PlanResult) -> str:
    names = ", ".join(dictionary["name"] for dictionary in result["dictionaries"])
    again = f" ({result['passes']} passes)" if result["passes"] > 1 else ""
    return (
        f"{names} at {result['site']} of {result['subject']}:\n"
        f"{result['tokens']:,} tokens{again} in {result['steps']:,} steps of "
        f"{result['batch_tokens']:,}"
    )


def _hardware(hardware: PlanHardware) -> str:
    products = ", ".join(
        f"{_with_unit(rate, ['FLOP/s', 'kFLOP/s', 'MFLOP/s', 'GFLOP/s', 'TFLOP/s', 'PFLOP/s'])} "
        f"in {precision}"
        for precision, rate in hardware["product_flops"].items()
    )
    lines = [
        f"{hardware['name']}, {hardware['origin']}: products {products}; memory "
        f"{in_bytes(hardware['memory_bytes'])} at "
        f"{in_bytes(hardware['memory_bandwidth'])}/s, disk {in_bytes(hardware['disk_write'])}/s "
        f"written and {in_bytes(hardware['disk_read'])}/s read.",
    ]
    if hardware["step_units"] is not None:
        lines.append(
            f"A training step took {hardware['step_units']:.2f} encoder products, "
            f"{hardware['step_factor']:.2f} times what its FLOPs and bytes alone would; a block of "
            f"the model {hardware['forward_factor']:.2f} times. The hours below include it."
        )
    return "\n".join(map(_wrapped, lines))


def _time(result: PlanResult) -> str:
    hours = result["hours"]
    rows = [
        [term["name"], term["kind"], in_hours(term["hours"]), f"{term['hours'] / hours:.0%}"]
        for term in result["terms"]
    ]
    rows.append(["total", f"mostly {result['bound']}", in_hours(hours), "100%"])
    return _table(["time", "bound by", "", ""], rows)


def _devices(result: PlanResult) -> str:
    if not result["fits"]:
        return "Devices: no number of them holds the run."
    shards, replicas = result["shards"], result["replicas"]
    return (
        f"Devices: {result['devices']:,} ({shards} for the latents of each dictionary, times "
        f"{replicas} for the tokens)"
    )


def _storage(result: PlanResult) -> str:
    storage = result["storage"]
    chosen = "streamed from the model" if result["streamed"] else "stored first"
    pays = (
        "never pays"
        if storage["passes_to_pay"] is None
        else f"pays from {storage['passes_to_pay']} passes or runs on"
    )
    text = (
        f"Activations: {chosen}. On one device the model takes "
        f"{in_hours(storage['streamed_hours'])} if it runs in every pass, and "
        f"{in_hours(storage['stored_hours'])} with a store of "
        f"{in_bytes(storage['activation_bytes'])}, which {pays}."
    )
    checkpoint = in_bytes(storage["checkpoint_bytes"])
    return f"{_wrapped(text)}\nCheckpoint: {checkpoint}, twice that while it is replaced"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_on_hyphens=False)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        is_number = not column
        table.add_column(
            column, justify="right" if is_number else "left", min_width=34 if number == 0 else None
        )
    for row in rows:
        table.add_row(*row)
    text = io.StringIO()
    Console(file=text, width=_WIDTH, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())
