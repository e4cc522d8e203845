"""Circuits of SqueezeNet 1.0 and of small networks: the numbers and pictures of docs/circuits.md.

    python -m benchmarks.circuits families features.1 features.3   # a table of families, by layer
    python -m benchmarks.circuits fidelity                         # what expanded weights predict
    python -m benchmarks.circuits equivariance                     # rotated first-layer kernels
    python -m benchmarks.circuits universality                     # seeds, twins, and nulls
    python -m benchmarks.circuits pictures                         # docs/images/circuits_*.svg

Data are those of MODELASSAY_SHARED (default ../shared): photographs only enter numbers. The small
networks are trained here on 6,000 of MNIST's test images, and compared on 2,000 others.
"""

import copy
import gzip
import math
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.observe.circuits.connections import fidelity
from modelassay.observe.circuits.equivariance import equivariance
from modelassay.observe.circuits.expansion import expanded_weights
from modelassay.observe.circuits.families import FAMILIES, LEAST_INDEX, family, shuffled_twin
from modelassay.observe.circuits.tuning import responses, tuning
from modelassay.observe.circuits.unit import optimised_icons, unit_circuits
from modelassay.observe.circuits.universality import match, moments
from modelassay.observe.stimuli import gratings
from modelassay.observe.visualize.image_input import GREY, IMAGENET, ImageInput
from modelassay.report.circuit_pictures import graph, polar
from modelassay.subjects.vision.images import read_images
from modelassay.subjects.vision.squeezenet import load_squeezenet

SHARED = Path(os.environ.get("MODELASSAY_SHARED", "../shared")) / "data"
PAIRS = (
    ("features.3", "features.4.expand3x3"),
    ("features.1", "features.3"),
    ("features.3", "features.5"),
    ("input", "features.3"),
    ("input", "features.5"),
)
IMAGES = 16
EPOCHS, TRAINED, COMPARED = 4, 6000, 2000


def squeezenet() -> nn.Module:
    """The real network."""
    return load_squeezenet(SHARED / "squeezenet1_0")


def photographs(count: int) -> Tensor:
    """Photographs of 128 pixels, evenly spaced through the folder."""
    found = [image for _, image in read_images(SHARED / "restricted_imagenet_sample", (128, 128))]
    return torch.stack(found[:: len(found) // count][:count])


def families(layers: list[str]) -> None:
    """One row a layer and family."""
    module = squeezenet()
    print("| layer | family | respond | index ≥ 1/3 | expected by chance | supported | members |")
    print("|---|---|---|---|---|---|---|")
    for layer in layers:
        for name in FAMILIES:
            found = family(module, layer, name)
            alive = int(found.measured.index.isfinite().sum())
            above = int((found.measured.index >= LEAST_INDEX).sum())
            members = ", ".join(map(str, found.members[:8]))
            print(
                f"| {layer} | {name} | {alive} of {len(found.p_value)} | {above} | "
                f"{found.null_share * alive:.1f} | {len(found.members)} | {members} |",
                flush=True,
            )


def predictions() -> None:
    """How well expanded weights predict changes between photographs."""
    module, images = squeezenet(), photographs(IMAGES)
    print(
        "| from | to | kernel | convolutions | correlation: median (10 % … 90 %) | another unit's |"
    )
    print("|---|---|---|---|---|---|")
    for source, target in PAIRS:
        weights = expanded_weights(module, source, target)
        found = fidelity(module, weights, images)
        low, middle, high = found.correlation.nanquantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
        print(
            f"| {source} | {target} | {weights.size[0]} | {weights.layers} | {middle:.2f} "
            f"({low:.2f} … {high:.2f}) | {float(found.other.nanmedian()):.2f} |",
            flush=True,
        )


def turned() -> None:
    """First-layer kernels that are tuned to orientation, turned onto each other."""
    module = squeezenet()
    found = family(module, "features.1", "orientation")
    members = list(found.members)
    kernels = expanded_weights(module, "input", "features.0", members).kernels
    angles = found.measured.preferred[members]
    result = equivariance(kernels, angles, period=math.pi)
    print(f"turned: mean correlation {float(result.turned.mean()):.3f}; {len(members)} members")
    print(f"as they are: {float(result.unturned.mean()):.3f}")
    null = result.random
    print(f"shuffled angles: {float(null.mean()):.3f}, at most {float(null.max()):.3f}")
    print(f"p {result.p_value:.3f}")


class SmallNetwork(nn.Module):
    """Two convolutions and a linear layer, for 28 pixels of grey."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 5, stride=2), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(32 * 25, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.second(self.first(x)).flatten(1))


def digits() -> tuple[Tensor, Tensor]:
    """MNIST's test images in 0 … 1, and their classes."""
    folder = SHARED / "mnist_mlp"
    pixels = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(-1, 1, 28, 28) / 255
    return images, torch.frombuffer(bytearray(labels), dtype=torch.uint8).long()


def trained(seed: int, images: Tensor, labels: Tensor) -> tuple[nn.Module, nn.Module]:
    """A small network before and after training; Adam 0.002, batches of 64."""
    with torch.random.fork_rng():
        torch.set_rng_state(derived(seed, "network").get_state())
        module = SmallNetwork()
    before = copy.deepcopy(module)
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    for epoch in range(EPOCHS):
        for some in torch.randperm(TRAINED, generator=derived(seed, "order", epoch)).split(64):
            loss = F.cross_entropy(module(images[some]), labels[some])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return before.eval().requires_grad_(False), module.eval().requires_grad_(False)


def compare(
    title: str, first: nn.Module, second: nn.Module, layer: str, images: Tensor,
    image_input: ImageInput,
) -> None:  # fmt: skip
    """One row of the table."""
    batches = [batch for batch in images.split(50) if len(batch) > 1]
    found = match(
        moments((first, layer), (second, layer), batches, image_inputs=(image_input, image_input))
    )
    best, one, permuted, rotated = (
        float(values.nanmedian())
        for values in (found.best, found.one_to_one, found.null_permuted, found.null_rotated)
    )
    print(
        f"| {title} | {layer} | {best:.2f} | {one:.2f} | {permuted:.2f} | {rotated:.2f} | "
        f"{found.shared:.0%} | {found.cka:.2f} | {found.svcca:.2f} |",
        flush=True,
    )


def universality() -> None:
    """Seeds of a small network; SqueezeNet and a twin whose later layers are shuffled."""
    images, labels = digits()
    (raw, one), (_, two) = (trained(seed, images, labels) for seed in (0, 1))
    held = images[-COMPARED:]
    for name, module in (("seed 0", one), ("seed 1", two)):
        right = (module(held).argmax(1) == labels[-COMPARED:]).float().mean()
        print(f"{name}: accuracy {float(right):.3f}")
    print("| networks | layer | best | one to one | other images | turned | shared | CKA | SVCCA |")
    print("|---|---|---|---|---|---|---|---|---|")
    coloured = held.expand(-1, 3, -1, -1)
    for layer in ("first", "second"):
        compare("two seeds", one, two, layer, coloured, GREY)
        compare("trained, untrained other seed", two, raw, layer, coloured, GREY)
    module = squeezenet()
    twin = shuffled_twin(module, derived(0, "twin"))
    partly = copy.deepcopy(module)
    kept = {f"features.{index}." for index in range(5)}
    state = {
        name: tensor if any(name.startswith(part) for part in kept) else twin.state_dict()[name]
        for name, tensor in module.state_dict().items()
    }
    partly.load_state_dict(state)
    seen = photographs(100)
    for layer in ("features.4", "features.5", "features.9"):
        compare("SqueezeNet, shuffled from features.5 on", module, partly, layer, seen, IMAGENET)


def pictures() -> None:
    """The pictures of the documentation; none holds a photograph."""
    module, folder = squeezenet(), Path("docs/images")
    members = list(family(module, "features.1", "orientation").members)
    curves = tuning(responses(module, "features.1", gratings(96)), "orientation")
    drawn = polar(curves, members[:12], "Orientation tuning of 12 channels of features.1")
    (folder / "circuits_tuning.svg").write_text(drawn, "utf-8")
    weights = expanded_weights(module, "features.1", "features.3", [70])
    (circuit,) = unit_circuits(weights, optimised_icons(module), count=4)
    (folder / "circuits_unit.svg").write_text(graph(circuit), "utf-8")


def main() -> None:
    """Run what is asked for."""
    kind, *rest = sys.argv[1:] or ["families"]
    if kind == "families":
        families(rest or ["features.1", "features.3"])
        return
    {"fidelity": predictions, "equivariance": turned, "universality": universality,
     "pictures": pictures}[kind]()  # fmt: skip


if __name__ == "__main__":
    main()
