"""Toy models of superposition: seconds, numbers of each experiment, and the pictures of the docs.

python -m benchmarks.superposition                       # quick sizes, all experiments
python -m benchmarks.superposition full pentagon uniform # published sizes
python -m benchmarks.superposition draw                  # quick; docs/images/superposition_*.svg
python -m benchmarks.superposition cost                  # written-out gradients beside autograd
"""

import sys
import time
from pathlib import Path

import torch

from modelassay.core.files import write_atomically
from modelassay.core.progress import default_progress
from modelassay.core.randomness import derived
from modelassay.observe.superposition.data import FeatureData
from modelassay.observe.superposition.experiments import known, run_experiment
from modelassay.observe.superposition.models import ToyModels, random_models
from modelassay.report.superposition_figures import draw

DRAWN = ("pentagon", "strips", "uniform", "phase_2_1", "collapse", "octahedron", "absolute_100")
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
STEPS = 300


def cost() -> None:
    """CPU seconds of 1,000 gradients of ten models of five features, 1,024 inputs each."""
    generator = derived(0, "cost")
    models = random_models(10, 5, 2, generator)
    inputs = FeatureData(density=torch.full((10, 5), 0.05)).sample(1024, generator)
    importance = torch.ones(10, 5)
    encoder, bias = (models.parameters()[name].requires_grad_() for name in ("encoder", "bias"))

    def by_autograd() -> None:
        ToyModels(encoder=encoder, bias=bias).loss(inputs, inputs, importance).sum().backward()

    def written_out() -> None:
        with torch.no_grad():
            models.gradients(inputs, inputs, importance)

    for name, once in (("autograd", by_autograd), ("written out", written_out)):
        begun = time.process_time()
        for _ in range(STEPS):
            once()
        print(f"{name}: {(time.process_time() - begun) / STEPS * 1000:.2f} s per 1,000")


def main(arguments: list[str]) -> None:
    """Run, print and, if asked, draw."""
    if arguments == ["cost"]:
        cost()
        return
    kind = arguments[0] if arguments[:1] in (["full"], ["draw"]) else "quick"
    names = arguments[kind != "quick" :]
    for name in known(names or (DRAWN if kind == "draw" else ())):
        begun = time.process_time()
        study = run_experiment(
            name, size="full" if kind == "full" else "quick", progress=default_progress()
        )
        print(f"\n## {study.title} ({name}): {time.process_time() - begun:.1f} s of CPU")
        for row in study.rows:
            print(
                "  ".join(
                    f"{key} {value if isinstance(value, str) else format(value, '.4g')}"
                    for key, value in row.items()
                )
            )
        if kind == "draw":
            write_atomically(IMAGES / f"superposition_{name}.svg", draw(study))


if __name__ == "__main__":
    main(sys.argv[1:])
