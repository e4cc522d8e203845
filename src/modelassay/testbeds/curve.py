"""T1: a curve that the model is blind to. Sparse coding tiles it; the model reads two scalars.

The hidden layer is 32 ReLUs of x and 32 of y, turned at random; the data lie on a curve
``(cos p t, sin q t)``. Two readers of the same layer:

- *blind*: ``y = (g(x), h(y))`` with g = sin 3x and h = cos 4y + y, linear. The model's features are
  the two numbers that it reads; it knows nothing of the curve.
- *aware*: four random smooth functions of t, from a table over the curve. They are the features.

In both arms the features of the activations are 500 tiles of t. Interventional inputs have x and y
independent, each distributed as on the curve; there an input belongs to the tile whose mean
activation is nearest; the few tiles that no interventional input belongs to are left out.

Prediction: PCA finds neither; sparse coding finds tiles in both arms; a method that sees the
gradient finds the plane of the two covectors. On the data tiles are as good as the truth: replacing
every activation by its tile changes nothing that the blind arm puts out. Off the curve it does, but
only while the curve leaves room: near a *space-filling* curve (31:29) every point has a tile, and
off-manifold faithfulness cannot tell tiles from what the model reads.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.linear import PCA
from modelassay.decompositions.local_interaction import LocalInteractionBasis
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.curve_known import known_numbers
from modelassay.testbeds.curve_model import (
    TILES,
    Curve,
    TableReader,
    Tiles,
    blind_reader,
    curve_trunk,
    make_tiles,
    random_functions,
)
from modelassay.testbeds.curve_picture import draw
from modelassay.testbeds.faithfulness import faithfulness, smallest_canonical_correlation
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth, one_hot_scalars

_DATA, _INTERVENTIONAL = 20_000, 4_000
_FUNCTIONS = 4
_SIZE = Size(width=TILES, k=4, tokens=400_000, batch_tokens=512)


def build(name: str, curve: Curve, seed: int) -> Testbed:
    """The testbed of a curve: arms "blind" and "aware"."""
    draws = partial(derived, seed, "T1", name)
    trunk = curve_trunk(draws("trunk"))
    tiles = make_tiles(curve, trunk)
    table = random_functions(tiles.t, _FUNCTIONS, draws("table"))
    blind, aware = blind_reader(trunk), TableReader(tiles, table)
    data = curve.sample(_DATA, draws("data"))
    interventional = curve.shuffled(_INTERVENTIONAL, draws("interventional"))
    truths = {
        "blind": _outputs_truth(("g(x)", "h(y)"), trunk, blind, covectors=blind.weight.clone()),
        "aware": _outputs_truth(tuple(f"f{i}(t)" for i in range(_FUNCTIONS)), trunk, aware),
    }
    arms = tuple(
        Arm(
            name=arm,
            subject=arm_subject(f"{name} {arm}", trunk, reader),
            activations_truth=_tiles_truth(tiles, trunk, interventional),
            model_truth=truths[arm],
            data=data,
            interventional=interventional,
        )
        for arm, reader in (("blind", blind), ("aware", aware))
    )
    return Testbed(
        name=name,
        seed=seed,
        arms=arms,
        size=_SIZE,
        own_scores=partial(own_scores, tiles),
        known=partial(known_numbers, curve, seed),
        draw=partial(draw, curve, tiles, arms[0]),
    )


def _tiles_truth(tiles: Tiles, trunk: nn.Module, interventional: Tensor) -> Truth:
    """One feature for every tile that any of the inputs belongs to."""
    seen = tiles.nearest(trunk(interventional)).unique()
    of_all = one_hot_scalars(lambda inputs: tiles.nearest(trunk(inputs)), TILES)
    return Truth(
        names=tuple(f"tile {i}" for i in seen.tolist()),
        scalars=lambda inputs: of_all(inputs)[:, seen],
    )


def _outputs_truth(
    names: tuple[str, ...], trunk: nn.Module, reader: nn.Module, covectors: Tensor | None = None
) -> Truth:
    """What a reader puts out: the read-out of g is the feature, not the sine that it is near to."""
    return Truth(names=names, scalars=lambda inputs: reader(trunk(inputs)), covectors=covectors)


def own_scores(tiles: Tiles, arm: Arm, decomposition: Decomposition) -> Mapping[str, float]:
    """Faithfulness on the curve and off it; how tile-like latents are; overlap with the reads.

    "tile_locality" is 1 if every latent is active at one place of the curve only, 0 if all around
    it: ``|sum z^2 e^(it)| / sum z^2``, mean over latents weighted by the energy that they write.
    "subspace_overlap" is given in the blind arm for methods that rank linear latents: the smallest
    canonical correlation of the first two with g and h, off the curve.
    """
    found = {
        "on_curve_faithfulness": faithfulness(arm, decomposition),
        "off_manifold_faithfulness": faithfulness(arm, decomposition, arm.interventional),
        "tile_locality": tile_locality(tiles, arm, decomposition),
    }
    read = arm.model_truth
    if read.covectors is not None and isinstance(decomposition, PCA | LocalInteractionBasis):
        leading = arm.codes(decomposition).dense()[:, : len(read)]
        found["subspace_overlap"] = smallest_canonical_correlation(
            leading, read.values(arm.interventional)
        )
    return found


def tile_locality(tiles: Tiles, arm: Arm, decomposition: Decomposition) -> float:
    """How much of what is written on the data comes from latents that are local on the curve."""
    t = tiles.t[tiles.nearest(arm.activations)]
    energy = decomposition.encode(arm.activations).dense().square()
    round_the_curve = torch.stack([t.cos(), t.sin()]) @ energy  # [2, latent]
    written = decomposition.directions.square().sum(1)
    total = (energy.sum(0) * written).sum().clamp(min=1e-30)
    return float((round_the_curve.norm(dim=0) * written).sum() / total)


def _kind(variant: str, title: str, curve: Curve) -> TestbedKind:
    name = f"T1.{variant}"
    return TestbedKind(
        name=name,
        title=f"A curve that the model is blind to: {title}",
        claim=(
            "Activations can hold structure of the data that the model knows nothing of: sparse "
            "coding tiles a curve of which the model reads two scalars."
        ),
        build=partial(build, name, curve),
        references=("chughtai2025",),
    )


KINDS: tuple[TestbedKind, ...] = (
    _kind("circle", "circle", Curve(p=1, q=1)),
    _kind("lissajous", "3:2 Lissajous curve", Curve(p=3, q=2)),
    _kind("filling", "31:29 Lissajous curve, where the test is blind", Curve(p=31, q=29)),
)
