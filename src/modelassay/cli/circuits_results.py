"""What the commands of `modelassay circuits` do, and how they say it."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from modelassay.cli.circuits_schemas import (
    CircuitTuningResult,
    CircuitUniversalityResult,
    CircuitWeightsResult,
    FamilyEntry,
    UnitEntry,
)
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.cli.visualizing import load_image_model, parse_channels
from modelassay.core.errors import UnknownNameError
from modelassay.core.progress import default_progress
from modelassay.core.provenance import Provenance
from modelassay.observe.circuits.connections import Fidelity, fidelity
from modelassay.observe.circuits.expansion import expanded_weights
from modelassay.observe.circuits.families import FAMILIES, Family, family
from modelassay.observe.circuits.linear_run import INPUT
from modelassay.observe.circuits.tuning import responses, tuning
from modelassay.observe.circuits.unit import (
    UnitCircuit,
    activity,
    optimised_icons,
    unit_circuits,
    weight_icons,
)
from modelassay.observe.circuits.universality import match, moments
from modelassay.observe.stimuli import gratings
from modelassay.observe.visualize.feature_maps import layer_shapes
from modelassay.observe.visualize.image_input import ImageInput
from modelassay.report.circuits import (
    TuningStudy,
    UniversalityStudy,
    WeightsStudy,
    tuning_report,
    universality_report,
    weights_report,
)
from modelassay.subjects.vision.images import image_files, read_images

_SIDE = 128  # pixels of photographs, and of the image that shapes are read from
_MOST_IMAGES = 64  # photographs that weights are compared on
_BATCH = 32
_SHORT = {"high-low": "high-low frequency", "colour": "colour contrast"}


def show_weights(
    source_name: str, *, layer: str, source: str, channels: str, count: int, images: Path | None,
    icons: str, out: Path, join: Path | None, seed: int, device: str,
) -> CircuitWeightsResult:  # fmt: skip
    """Expand the weights, draw the units, and write the page."""
    module, image_input = _load(source_name, device)
    check_join(join, module)
    n_inputs, side = len(image_input.mean), image_input.size
    example = torch.full((1, 3, *(side or (_SIDE, _SIDE))), 0.5, device=device)
    available = layer_shapes(module, [layer], image_input(example))[layer][0]
    found = expanded_weights(
        module, source, layer, parse_channels(channels, available), n_inputs=n_inputs,
        size=side[0] if side else None,
    )  # fmt: skip
    draw = weight_icons(module, n_inputs)
    if icons == "optimised":
        draw = optimised_icons(module, image_input=image_input, seed=seed)
    scale, believed = None, None
    if images is not None:
        seen = torch.stack([image for _, image in islice(_photographs(images), _MOST_IMAGES)])
        believed = fidelity(module, found, seen, image_input=image_input)
        if source != INPUT:
            scale = activity(module, source, seen, image_input=image_input)
    units = unit_circuits(found, draw, count=count, scale=scale)
    study = WeightsStudy(
        title=f"Circuits of {layer} of {Path(source_name).name}", weights=found, units=units,
        fidelity=believed, provenance=Provenance.collect(seed=seed, device=device),
    )  # fmt: skip
    page = weights_report(study)
    page.write(out, force=True)
    join_page(join, page, module, study.provenance, command="circuits", out=out)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": source_name,
        "source": source,
        "target": layer,
        "layers": found.layers,
        "kernel": list(found.size),
        "units": [_unit_entry(unit, index, believed) for index, unit in enumerate(units)],
        "out": str(out),
    }


def _photographs(folder: Path, side: int = _SIDE) -> Iterator[tuple[Path, Tensor]]:
    return read_images(folder, (side, side))


def _load(name: str, device: str) -> tuple[nn.Module, ImageInput]:
    module, image_input = load_image_model(name)
    return module.to(device), image_input


def _unit_entry(unit: UnitCircuit, index: int, believed: Fidelity | None) -> UnitEntry:
    return {
        "channel": unit.channel,
        "inputs": [
            {
                "channel": each.channel,
                "strength": each.strength,
                "total": each.total,
                "share": each.share,
            }
            for each in unit.ranked
        ],
        "correlation": _known(believed.correlation)[index] if believed else None,
        "other": _known(believed.other)[index] if believed else None,
    }


def _known(values: Tensor) -> list[float | None]:
    return [value if value == value else None for value in values.tolist()]


def weights_text(result: CircuitWeightsResult) -> str:
    """The weights for a terminal."""
    rows, columns = result["kernel"]
    lines = [
        f"{result['source']} -> {result['target']} of {result['model']}: "
        f"{result['layers']} convolutions, kernels of {rows} x {columns}"
    ]
    for unit in result["units"]:
        strongest = ", ".join(
            f"{'+' if each['total'] >= 0 else '-'}{each['channel']} ({each['share']:.0%})"
            for each in unit["inputs"][:6]
        )
        predicted = ""
        if unit["correlation"] is not None:
            predicted = f"  predicts changes by r = {unit['correlation']:.2f}"
        lines.append(f"  channel {unit['channel']:<5} {strongest}{predicted}")
    return "\n".join([*lines, f"The page is at {result['out']}"])


def measure_tuning(
    source_name: str, *, layer: str, families: str, twins: int, size: int, out: Path,
    join: Path | None, seed: int, device: str,
) -> CircuitTuningResult:  # fmt: skip
    """Measure families and write the page."""
    chosen = _chosen(families)
    module, image_input = _load(source_name, device)
    check_join(join, module)
    found = tuple(
        family(
            module, layer, name, size=size, n_twins=twins, image_input=image_input, seed=seed,
            progress=default_progress(),
        )
        for name in chosen
    )  # fmt: skip
    curves, drawn = None, ()
    if "orientation" in chosen:
        responding = responses(module, layer, gratings(size), image_input=image_input)
        curves = tuning(responding, "orientation", seed=seed)
        drawn = found[chosen.index("orientation")].members
    study = TuningStudy(
        title=f"Tuning of {layer} of {Path(source_name).name}", layer=layer, families=found,
        curves=curves, channels=drawn, provenance=Provenance.collect(seed=seed, device=device),
    )  # fmt: skip
    page = tuning_report(study)
    page.write(out, force=True)
    join_page(join, page, module, study.provenance, command="circuits", out=out)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": source_name,
        "layer": layer,
        "size": size,
        "twins": twins,
        "seed": seed,
        "families": [_family_entry(each) for each in found],
        "out": str(out),
    }


def _chosen(text: str) -> list[str]:
    if text == "all":
        return list(FAMILIES)
    names = [_SHORT.get(part.strip(), part.strip()) for part in text.split(",")]
    for name in names:
        if name not in FAMILIES:
            raise UnknownNameError("A family", name, [*FAMILIES, *_SHORT, "all"])
    return list(dict.fromkeys(names))


def _family_entry(found: Family) -> FamilyEntry:
    return {
        "name": found.name,
        "members": list(found.members),
        "index": _known(found.measured.index),
        "preferred": _known(found.measured.preferred),
        "q_value": found.q_value.tolist(),
        "null_share": found.null_share,
    }


def tuning_text(result: CircuitTuningResult) -> str:
    """The families for a terminal."""
    lines = [f"{result['layer']} of {result['model']}, against {result['twins']} shuffled networks"]
    for each in result["families"]:
        members = ", ".join(map(str, each["members"][:12])) or "none was found"
        more = f", … ({len(each['members'])})" if len(each["members"]) > 12 else ""
        lines.append(f"  {each['name']:<20} {members}{more}")
    return "\n".join([*lines, f"The page is at {result['out']}"])


def match_models(
    first_name: str, second_name: str, *, layer: str, other_layer: str, images: Path, size: int,
    out: Path, join: Path | None, seed: int, device: str,
) -> CircuitUniversalityResult:  # fmt: skip
    """Match two models' units and write the page."""
    (first, first_input), (second, second_input) = (
        _load(name, device) for name in (first_name, second_name)
    )
    check_join(join, first)
    count = len(image_files(images))
    found = moments(
        (first, layer), (second, other_layer), _batches(images, size),
        image_inputs=(first_input, second_input), n_images=count, progress=default_progress(),
    )  # fmt: skip
    matching = match(found, seed=seed)
    names = (f"{Path(first_name).name} {layer}", f"{Path(second_name).name} {other_layer}")
    study = UniversalityStudy(
        title=f"{names[0]} and {names[1]}", names=names, matching=matching,
        n_images=found.n_images, provenance=Provenance.collect(seed=seed, device=device),
    )  # fmt: skip
    page = universality_report(study)
    page.write(out, force=True)
    join_page(join, page, first, study.provenance, command="circuits", out=out)
    return {
        "schema_version": SCHEMA_VERSION,
        "models": [first_name, second_name],
        "layers": [layer, other_layer],
        "images": found.n_images,
        "best": _known(matching.best),
        "partner": matching.partner.tolist(),
        "one_to_one": _known(matching.one_to_one),
        "assigned": matching.assigned.tolist(),
        "null_permuted": _known(matching.null_permuted),
        "null_rotated": _known(matching.null_rotated),
        "shared": matching.shared,
        "cka": matching.cka,
        "svcca": matching.svcca,
        "seed": seed,
        "out": str(out),
    }


def _batches(folder: Path, size: int) -> Iterator[Tensor]:
    """Batches of two or more; a single last image has no other to stand beside and is left out."""
    photographs = _photographs(folder, size)
    while batch := [image for _, image in islice(photographs, _BATCH)]:
        if len(batch) > 1:
            yield torch.stack(batch)


def universality_text(result: CircuitUniversalityResult) -> str:
    """The matching for a terminal."""
    known = [torch.tensor([value for value in result[key] if value is not None]) for key in
             ("best", "null_permuted", "null_rotated")]  # fmt: skip
    best, permuted, turned = (float(values.median()) for values in known)
    return (
        f"{' '.join(result['models'])} over {result['images']} images\n"
        f"  best partner: median correlation {best:.3f}; other images {permuted:.3f}, "
        f"turned space {turned:.3f}\n"
        f"  above both nulls: {result['shared']:.0%} of the channels; CKA {result['cka']:.3f}, "
        f"SVCCA {result['svcca']:.3f}\n"
        f"The page is at {result['out']}"
    )
