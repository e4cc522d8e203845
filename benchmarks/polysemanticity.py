"""Polysemanticity of channels, of sums of two channels, and of random directions.

    python -m benchmarks.polysemanticity             # 8 channels, 8 sums of two, 4 directions
    python -m benchmarks.polysemanticity 32          # so many channels and sums
    python -m benchmarks.polysemanticity 8 16        # and so many examples of each

Channels of features.9 of SqueezeNet 1.0 over the 200 photographs of restricted_imagenet_sample
(MODELASSAY_SHARED, default ../shared), compared by features.12 at the same places. A sum adds two
channels, each divided by its deviation: a unit that is polysemantic by construction, if the two
channels see different things. The AUROC says how often a sum has a higher index than a channel.
"""

import os
import sys
from itertools import product
from pathlib import Path

import torch

from modelassay.core.randomness import derived
from modelassay.observe.visualize.image_set import ImageFolder, LoadedImages
from modelassay.observe.visualize.polysemanticity import (
    Polysemanticity,
    channel_deviations,
    polysemanticity,
)
from modelassay.observe.visualize.unit_maps import Scene
from modelassay.subjects.vision.squeezenet import load_squeezenet

LAYER, OTHER, CHANNELS = "features.9", "features.12", 384
DIRECTIONS = 4
SIZE = (128, 128)


def described(title: str, units: tuple[Polysemanticity, ...]) -> list[float]:
    """Print one row, and give the indices."""
    found = [unit.facets for unit in units if unit.facets is not None]
    indices = [facets.index for facets in found]
    split = sum(facets.count > 1 for facets in found)
    above = sum(facets.low > 0 for facets in found)
    middle = float(torch.tensor(indices).median()) if indices else float("nan")
    print(f"| {title} | {len(found)} | {split} | {above} | {middle:.3f} |", flush=True)
    return indices


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    examples = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    shared = Path(os.environ.get("MODELASSAY_SHARED", "../shared")) / "data"
    module = load_squeezenet(shared / "squeezenet1_0")
    folder = ImageFolder(shared / "restricted_imagenet_sample" / "images", SIZE)
    images = LoadedImages(torch.stack([folder.image(index) for index in range(len(folder))]))
    deviation = channel_deviations(Scene(module=module, layer=LAYER, images=images))
    alive = (deviation > 0).nonzero()[:, 0]
    chosen = alive[torch.randperm(len(alive), generator=derived(0, "channels"))[: 3 * count]]
    single = torch.eye(CHANNELS) / deviation.clamp_min(1e-12)[:, None]
    sums = single[chosen[count : 2 * count]] + single[chosen[2 * count :]]
    units = torch.cat([single[chosen[:count]], sums])
    found = polysemanticity(
        module, LAYER, OTHER, images, directions=units, n_random=DIRECTIONS, n_examples=examples
    )
    print(f"{len(images)} photographs, {found.units[0].examples} strongest of each unit\n")
    print("| units | looked at | more than one facet | interval above 0 | median index |")
    print("|---|---|---|---|---|")
    channels = described("channels", found.units[:count])
    doubles = described("sums of two channels", found.units[count:])
    print(f"| random directions | {len(found.random)} | | | {float(found.random.median()):.3f} |")
    wins = [float(d > c) + 0.5 * float(d == c) for c, d in product(channels, doubles)]
    print(f"\nAUROC of sums against channels: {sum(wins) / max(1, len(wins)):.2f}")


if __name__ == "__main__":
    main()
