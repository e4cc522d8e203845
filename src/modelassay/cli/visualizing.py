"""What `modelassay visualize` does: a model of images, targets in it, a page or a picture."""

import math
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from modelassay.cli.joining import check_join, join_page
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.cli.visualize_schemas import ImageExampleEntry, VisualizeEntry, VisualizeResult
from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.files import read_json, write_atomically
from modelassay.core.progress import default_progress
from modelassay.observe.visualize.algebra import Target
from modelassay.observe.visualize.between_images import FACET_WEIGHT, FacetSimilarity
from modelassay.observe.visualize.controls import Controls, controls
from modelassay.observe.visualize.feature_maps import layer_shapes
from modelassay.observe.visualize.image_examples import ImageExamples, find_image_examples
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.image_set import ImageFolder
from modelassay.observe.visualize.png import sheet, to_png
from modelassay.observe.visualize.render import measure, render
from modelassay.observe.visualize.result import Visualization
from modelassay.observe.visualize.settings import Settings, preset
from modelassay.observe.visualize.targets import Channel, Layer, Neuron
from modelassay.report.visualize import Gallery, gallery_report
from modelassay.subjects.vision.images import image_files, read_images
from modelassay.subjects.vision.squeezenet import is_squeezenet_folder, load_squeezenet

ImageModel = tuple[nn.Module, ImageInput]
_BATCH = 32  # photographs at once


def load_image_model(source: str) -> ImageModel:
    """A model of images, and what it wants its images to look like.

    Args:
        source: a folder of SqueezeNet 1.0 with torchvision's parameter names; a Hugging Face folder
            or id of an image classifier; or `file.py:function`, a function without arguments that
            returns a module, or a module and its `ImageInput`. The file is run.

    Raises:
        UnknownNameError: if there is no such folder, file or function.
        CorruptFileError: if the weights are damaged.
    """
    path, colon, name = source.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path), name)
    if is_squeezenet_folder(source):
        return load_squeezenet(source), IMAGENET
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file() and (folder.exists() or source.count("/") != 1):
        raise UnknownNameError("A model of images", source, _folders_beside(folder))
    return _from_hugging_face(source, local=folder.is_dir())


def _folders_beside(folder: Path) -> list[str]:
    """Folders of weights where the named one would have been."""
    return sorted(str(found.parent) for found in folder.parent.glob("*/model.safetensors"))


def _from_file(path: Path, name: str) -> ImageModel:
    spec = spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UnknownNameError(
            "A Python file", str(path), [str(p) for p in path.parent.glob("*.py")]
        )
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    make: Any = getattr(module, name, None)
    if not callable(make):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise UnknownNameError(f"A function of {path.name}", name, known)
    made: Any = make()
    return made if isinstance(made, tuple) else (made, IMAGENET)


def _from_hugging_face(source: str, *, local: bool) -> ImageModel:
    try:
        model: Any = AutoModelForImageClassification.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError) as error:
        raise UnknownNameError(
            f"A model of images ({str(error).splitlines()[0]})",
            source,
            _folders_beside(Path(source)),
        ) from error
    size = getattr(model.config, "image_size", None)
    size = (size, size) if isinstance(size, int) else tuple(size) if size else None
    described = Path(source) / "preprocessor_config.json"
    numbers = read_json(described) if described.is_file() else {}
    mean = tuple(numbers.get("image_mean", IMAGENET.mean))
    deviation = tuple(numbers.get("image_std", IMAGENET.deviation))
    return model.eval().requires_grad_(False), ImageInput(mean=mean, deviation=deviation, size=size)


def parse_channels(text: str, available: int) -> list[int]:
    """Channels as they are typed: "0:16", "3,7,12", "0:4,9", or "all".

    Raises:
        ValueRangeError: if the text is none of these or names no channel.
    """
    chosen: list[int] = []
    for part in text.split(","):
        if not part.strip():
            break
        first, colon, last = ("0", ":", "") if part == "all" else part.strip().partition(":")
        if not all(number.isdecimal() for number in (first or "0", last or "0")):
            break
        low = int(first or 0)
        chosen += range(low, int(last or available)) if colon else [low]
    else:
        if chosen:
            return chosen
    raise ValueRangeError(
        f"Channels must read like 0:16, or 3,7,12, or all; got {text!r}. The layer has {available}."
    )


def make_targets(kind: str, layer: str, channels: list[int]) -> list[Target]:
    """One target a channel, or one for the whole layer."""
    if kind == "layer":
        return [Layer(layer)]
    make = Neuron if kind == "neuron" else Channel
    return [make(layer, index) for index in channels]


def visualize_model(
    source: str, *, layer: str, channels: str, kind: str, facets: int, settings: str,
    size: int | None, steps: int | None, with_controls: bool, natural: Path | None, out: Path,
    join: Path | None, seed: int, device: str,
) -> VisualizeResult:  # fmt: skip
    """Optimise the images and write a page (`.html`), a sheet (`.png`) or a folder of tensors."""
    module, image_input = load_image_model(source)
    module = module.to(device)
    check_join(join, module)
    chosen = preset(settings, size, steps)
    example = torch.full((1, 3, *chosen.size), 0.5, device=device)
    available = layer_shapes(module, [layer], image_input(example))[layer][0]
    numbers = parse_channels(channels, available)
    targets = make_targets(kind, layer, numbers)
    # Before the long work: a folder without images is refused at once.
    photographs = None if natural is None else ImageFolder(natural, chosen.size)
    apart = -FACET_WEIGHT * FacetSimilarity(layer) if facets > 1 else None
    result = render(
        module, targets, settings=chosen, image_input=image_input, facets=facets,
        between_facets=apart, seed=seed, progress=default_progress(),
    )  # fmt: skip
    best, looked_at = _natural(module, targets, natural, image_input, chosen, facets)
    examples = None
    if photographs is not None and kind != "layer":
        examples = find_image_examples(
            module, layer, photographs, channels=numbers,
            image_input=image_input, seed=seed, progress=default_progress(),
        )  # fmt: skip
    beside = None
    if with_controls and out.suffix == ".html":
        beside = controls(
            module, tuple(targets), settings=chosen, image_input=image_input, seed=seed,
            n_directions=min(4, len(targets)), progress=default_progress(),
        )  # fmt: skip
    gallery = Gallery(
        title=f"{layer} of {Path(source).name}", optimised=result, natural=best,
        n_natural=looked_at, controls=beside, examples=examples,
    )  # fmt: skip
    write_gallery(gallery, out)
    if join is not None:
        page = gallery_report(gallery)
        join_page(join, page, module, result.provenance, command="visualize", out=out)
    return _described(gallery, source, layer, out)


def write_gallery(gallery: Gallery, out: Path) -> None:
    """Write a page, a sheet or a folder, by the end of the name."""
    images = gallery.optimised.images
    if out.suffix == ".html":
        gallery_report(gallery).write(out, force=True)
    elif out.suffix == ".png":
        columns = max(gallery.optimised.facets, math.ceil(math.sqrt(len(images))))
        write_atomically(out, to_png(sheet(images, columns)))
    else:
        gallery.optimised.save(out, force=True)


def _natural(
    module: nn.Module, targets: list[Target], folder: Path | None, image_input: ImageInput,
    chosen: Settings, facets: int,
) -> tuple[Tensor | None, int]:  # fmt: skip
    """The most that any natural image has of each image's target, and how many were looked at."""
    if folder is None:
        return None, 0
    best, count = torch.full((len(targets),), -torch.inf), len(image_files(folder))
    with default_progress().task("look at images", total=count, unit="image") as task:
        photographs = read_images(folder, chosen.size)
        while batch := [image for _, image in islice(photographs, _BATCH)]:
            values = measure(module, targets, torch.stack(batch), image_input=image_input)
            best = torch.maximum(best, values.max(1).values)
            task.advance(len(batch))
    return best.repeat_interleave(facets), count


def _described(gallery: Gallery, source: str, layer: str, out: Path) -> VisualizeResult:
    result: Visualization = gallery.optimised
    entries: list[VisualizeEntry] = [
        {
            "target": name,
            "objective": float(result.objective[index]),
            "natural": None if gallery.natural is None else float(gallery.natural[index]),
            "dead": bool(result.dead[index]),
            "examples": example_entries(gallery.examples, index, result.facets),
        }
        for index, name in enumerate(result.names)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": source,
        "layer": layer,
        "images": entries,
        "controls": _controls_values(gallery.controls),
        "redirected": result.redirected,
        "settings": result.settings.as_json(),
        "seed": result.seed,
        "out": str(out),
    }


def example_entries(
    found: ImageExamples | None, image: int, facets: int
) -> list[ImageExampleEntry]:
    """The examples of a target, with its first facet; none without natural images."""
    if found is None or image % facets:
        return []
    return [
        {
            "group": group.name,
            "image": example.name,
            "position": list(example.position),
            "box": [example.box.top, example.box.left, example.box.bottom, example.box.right],
            "value": example.value,
        }
        for group in found.units[image // facets].groups
        for example in group.examples
    ]


def _controls_values(found: Controls | None) -> dict[str, list[float]]:
    if found is None:
        return {}
    values = {"untrained": found.untrained.objective.tolist()}
    if found.random_direction is not None:
        values["random_direction"] = found.random_direction.objective.tolist()
    return values


def as_text(result: VisualizeResult) -> str:
    """The result for a terminal."""
    lines = [f"{result['layer']} of {result['model']}"]
    for entry in result["images"]:
        natural = "" if entry["natural"] is None else f"  natural {entry['natural']:.4g}"
        dead = "  dead: exactly 0 at every step" if entry["dead"] else ""
        lines.append(f"  {entry['target']:<32} {entry['objective']:.4g}{natural}{dead}")
    if result["redirected"] == 0:
        lines.append("  no rectifier was found: gradients were not redirected")
    lines.append(f"The images are at {result['out']}")
    return "\n".join(lines)
