"""Feature visualization: seconds, and scores beside those of lucent's recipe.

    python -m benchmarks.visualize              # 16 channels kept for reporting
    python -m benchmarks.visualize choose       # the 8 channels on which settings were chosen
    python -m benchmarks.visualize upsampled    # lucent's recipe with images enlarged to 224 pixels
    python -m benchmarks.visualize gallery      # the pictures of docs/visualize.md

Channels of features.9 of SqueezeNet 1.0 (MODELASSAY_SHARED, default ../shared), 128 pixels, 256
steps, one image a channel, all in one batch. An image's score is its channel's mean activation over
64 draws of lucid's transformations, which the recipe was optimised under and ours was not.

The recipe is lucent's, written anew: Adam 0.05, Fourier coefficients of deviation 0.01, a border of
12, jitter 8, scale 0.9 to 1.1, rotation up to 10 degrees, jitter 4, no redirected gradients. lucent
also enlarges images below 224 pixels for the model; that costs three times as much, and is apart.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.observe.visualize.algebra import Target
from modelassay.observe.visualize.feature_maps import feature_maps
from modelassay.observe.visualize.image_input import IMAGENET, ImageInput
from modelassay.observe.visualize.png import sheet, to_png
from modelassay.observe.visualize.render import render
from modelassay.observe.visualize.settings import DEFAULT, LUCID_SETTINGS, Settings
from modelassay.observe.visualize.targets import Channel
from modelassay.observe.visualize.transforms import LUCID, apply
from modelassay.subjects.vision.squeezenet import load_squeezenet

LAYER, CHANNELS = "features.9", 384
STEPS = 256
DRAWS = 64
LUCENT = replace(LUCID_SETTINGS, steps=STEPS, redirect_steps=0)
OURS = replace(DEFAULT, steps=STEPS)
SMALL = replace(OURS, size=(64, 64), steps=48)
CLASSES = (1, 88, 130, 291, 323, 340, 779, 954)
"""Goldfish, macaw, flamingo, lion, monarch, zebra, school bus, banana."""
ENLARGED = replace(IMAGENET, size=(224, 224))


def channels(kind: str) -> list[int]:
    """Channels drawn once: 8 to choose settings on, 16 others to report."""
    order = torch.randperm(CHANNELS, generator=derived(0, "channels")).tolist()
    return order[:8] if kind == "choose" else order[8:24]


def score(module: nn.Module, images: Tensor, chosen: list[int]) -> Tensor:
    """Mean activation of each image's channel under random transformations."""
    draws = derived(0, "judge")
    total = torch.zeros(len(chosen))
    for _ in range(DRAWS):
        with torch.no_grad():
            seen = IMAGENET(apply(LUCID, images, draws))
            found = feature_maps(module, [LAYER], seen)[LAYER].mean((2, 3))
        total += found[torch.arange(len(chosen)), chosen]
    return total / DRAWS


def run(
    module: nn.Module, settings: Settings, chosen: list[int], image_input: ImageInput = IMAGENET
) -> tuple[Tensor, float, float]:
    """The images, seconds by the clock and seconds of processors."""
    wall, processors = time.perf_counter(), time.process_time()
    targets = [Channel(LAYER, index) for index in chosen]
    found = render(module, targets, settings=settings, image_input=image_input)
    return found.images, time.perf_counter() - wall, time.process_time() - processors


def gallery(module: nn.Module) -> None:
    """The pictures of the documentation: units drawn by their numbers, none left out."""
    walls: dict[str, tuple[Settings, list[Target]]] = {
        "early": (SMALL, [Channel("features.1", index) for index in range(0, 96, 6)]),
        "middle": (OURS, [Channel("features.5", index) for index in range(0, 256, 32)]),
        "late": (OURS, [Channel("features.12", index) for index in range(0, 512, 64)]),
        "classes": (OURS, [Channel("classifier.1", index) for index in CLASSES]),
    }
    for name in sys.argv[2:] or walls:
        settings, targets = walls[name]
        found = render(module, targets, settings=settings)
        page = to_png(sheet(found.images, 8))
        Path("docs/images", f"visualize_{name}.png").write_bytes(page)
        values = ", ".join(f"{value:.4g}" for value in found.objective.tolist())
        print(f"{name}: {len(page):,} bytes; dead {int(found.dead.sum())}; {values}", flush=True)


def main() -> None:
    """Print both tables, and write the images side by side."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "report"
    shared = Path(os.environ.get("MODELASSAY_SHARED", "../shared"))
    module = load_squeezenet(shared / "data" / "squeezenet1_0")
    if kind == "gallery":
        gallery(module)
        return
    chosen = channels(kind)
    load = os.getloadavg()[0]
    ours, wall, processors = run(module, OURS, chosen)
    peer_input = ENLARGED if kind == "upsampled" else IMAGENET
    peer, peer_wall, peer_processors = run(module, LUCENT, chosen, peer_input)
    print(f"| way | seconds (load {load:.1f}, threads {torch.get_num_threads()}) | processor s |")
    print("|---|---|---|")
    print(f"| ours | {wall:.1f} | {processors:.1f} |")
    print(f"| lucent's recipe | {peer_wall:.1f} | {peer_processors:.1f} |\n")
    scores, peer_scores = score(module, ours, chosen), score(module, peer, chosen)
    print("| channel | ours | lucent's recipe | ratio |")
    print("|---|---|---|---|")
    for index, mine, other in zip(chosen, scores.tolist(), peer_scores.tolist(), strict=True):
        print(f"| {index} | {mine:.1f} | {other:.1f} | {mine / max(other, 1e-9):.2f} |")
    print(f"\nours above: {int((scores > peer_scores).sum())} of {len(chosen)}")
    out = Path("out")
    out.mkdir(exist_ok=True)
    pages = torch.cat([ours, peer])
    (out / f"visualize_{kind}.png").write_bytes(to_png(sheet(pages, len(chosen))))


if __name__ == "__main__":
    main()
