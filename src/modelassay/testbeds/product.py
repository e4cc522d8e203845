"""T3: product or composed. Sparse coding finds "red triangle"; is that what the model uses?

One of n colours on one of m shapes, uniform and independent, and a few sparse distractors::

    x = c_i + s_j + sum_k z_k t_k      all orthonormal, turned at random in R^64

Colours and shapes take two active latents, pairs one: a method that minimises the number of
active latents (Anders et al. 2024) finds the pairs, whatever the rest of the model does. Three
readers of the same x:

- *additive*: ``y = A_i + B_j``, linear. The model's features are the colours and the shapes.
- *conjunction*: ``y = T_ij`` through ``ReLU(c_i . x + s_j . x - 1)``. The model's features are the
  pairs, as those of the activations are: here sparse coding is right.
- *xor*: ``y = (-1)^(i + j) v``. The model's one feature is the parity of i + j; with two colours
  and two shapes it is exclusive or.

The features of the activations are the pairs in every arm, of value ``ReLU(a_i + b_j - 1)`` for
strengths a and b. In the data these are 1, and there is exactly one colour and one shape.
Interventional inputs break both: strengths vary independently, and with probability 1/4 each colour
is on with probability 1/n (likewise each shape with 1/m), independently, so that some have none.
More would say little about latents that were fitted where there always is one of each: a latent for
a pair also answers to its colour alone.

Prediction: activation-only methods find pairs in all arms, PAD~ = 0. The interaction index of the
table of effects (`product_readers.interaction_index`) is 0, its expectation, and 1 in the arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.picture import Grid
from modelassay.testbeds.product_known import known_numbers
from modelassay.testbeds.product_readers import (
    Conjunctions,
    Parity,
    alternating,
    cell_means,
    interaction_index,
    pair_sums,
    parity_of,
)
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.scores import correlation, match
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.truth import Truth

# All ours: the example fixes only d.
_D = 64
_DISTRACTORS = 8  # or half as many as there are pairs
_DISTRACTOR_ON = 0.02
_STRENGTHS = (0.75, 1.25)  # interventional, and of distractors
_INDEPENDENT = 0.25  # how often the interventional colours are (likewise the shapes)
_DATA, _INTERVENTIONAL = 20_000, 8_000
_K = 1  # a pair; two would leave inputs without distractors a choice
_DRAWN_LATENTS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """How many colours and shapes there are; inputs are their strengths, then the distractors'."""

    colours: int
    shapes: int

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.colours * self.shapes

    @property
    def values(self) -> int:
        """Number of colours and shapes together."""
        return self.colours + self.shapes

    def cells(self, inputs: Float[Tensor, "input value"]) -> Int[Tensor, " input"]:
        """``colour * shapes + shape`` of inputs that have one of each."""
        colour = inputs[:, : self.colours].argmax(1)
        return colour * self.shapes + inputs[:, self.colours : self.values].argmax(1)

    @property
    def distractors(self) -> int:
        """Number of distractors."""
        return min(_DISTRACTORS, self.pairs // 2)

    def data(self, count: int, generator: torch.Generator) -> Float[Tensor, "input value"]:
        """One colour and one shape each, of strength 1."""
        one_hot = [_one_hot(count, n, generator) for n in (self.colours, self.shapes)]
        return torch.cat([*one_hot, self._sparse_distractors(count, generator)], 1)

    def interventional(
        self, count: int, generator: torch.Generator
    ) -> Float[Tensor, "input value"]:
        """Colours and shapes of any strength, and with probability 1/4 any number of either."""
        values: list[Tensor] = []
        for n in (self.colours, self.shapes):
            one = _one_hot(count, n, generator) * _strengths(count, n, generator)
            any_number = _sparse(count, n, 1 / n, generator)
            free = torch.rand(count, 1, generator=generator) < _INDEPENDENT
            values.append(torch.where(free, any_number, one))
        return torch.cat([*values, self._sparse_distractors(count, generator)], 1)

    def _sparse_distractors(self, count: int, generator: torch.Generator) -> Tensor:
        return _sparse(count, self.distractors, _DISTRACTOR_ON, generator)

    def products(self) -> Truth:
        """A feature for every colour and every shape."""
        names = [f"colour {i}" for i in range(self.colours)]
        names += [f"shape {j}" for j in range(self.shapes)]
        return Truth(names=tuple(names), scalars=lambda inputs: inputs[:, : self.values])

    def composed(self) -> Truth:
        """A feature for every pair, as a unit that needs both would show it."""
        names = [f"colour {i}, shape {j}" for i in range(self.colours) for j in range(self.shapes)]
        return Truth(names=tuple(names), scalars=self._pair_values)

    def parity(self) -> Truth:
        """The one feature of exclusive or."""
        return Truth(names=("parity",), scalars=self._parity_values)

    def _pair_values(self, inputs: Tensor) -> Tensor:
        colours, shapes = inputs[:, : self.colours], inputs[:, self.colours : self.values]
        return (colours[:, :, None] + shapes[:, None] - 1).relu().flatten(1)

    def _parity_values(self, inputs: Tensor) -> Tensor:
        colours, shapes = inputs[:, : self.colours], inputs[:, self.colours : self.values]
        u, w = (part @ alternating(part.shape[1]) for part in (colours, shapes))
        return parity_of(u, w)[:, None]


def _one_hot(count: int, n: int, generator: torch.Generator) -> Tensor:
    return nn.functional.one_hot(torch.randint(n, (count,), generator=generator), n).float()


def _strengths(count: int, n: int, generator: torch.Generator) -> Tensor:
    low, high = _STRENGTHS
    return low + (high - low) * torch.rand(count, n, generator=generator)


def _sparse(count: int, n: int, on: float, generator: torch.Generator) -> Tensor:
    return _strengths(count, n, generator) * (torch.rand(count, n, generator=generator) < on)


def build(world: World, seed: int) -> Testbed:
    """The testbed of a world: arms "additive", "conjunction" and "xor"."""
    name = f"T3.{world.colours}x{world.shapes}"
    draw = partial(derived, seed, "T3", name)
    turned = torch.linalg.qr(torch.randn(_D, _D, generator=draw("rotation")))[0]
    trunk = _linear(turned[:, : world.values + world.distractors])
    colours, shapes = turned.T[: world.colours], turned.T[world.colours : world.values]
    # As many outputs as colours and shapes: with fewer, only mixtures of them are read.
    q = world.values
    effects = torch.randn(q, world.values, generator=draw("additive"))
    table = torch.randn(world.pairs, q, generator=draw("table"))
    readers = {
        "additive": _linear(effects @ torch.cat([colours, shapes])),
        "conjunction": Conjunctions(colours, shapes, table),
        "xor": Parity(colours, shapes, torch.randn(q, generator=draw("xor"))),
    }
    values = torch.cat([colours, shapes])
    sums = pair_sums(colours, shapes)
    truths = {
        "additive": _with(world.products(), values),
        "conjunction": _with(world.composed(), sums),
        "xor": world.parity(),
    }
    data = world.data(_DATA, draw("data"))
    interventional = world.interventional(_INTERVENTIONAL, draw("interventional"))
    arms = tuple(
        Arm(
            name=arm,
            subject=arm_subject(f"{name} {arm}", trunk, reader),
            data=data,
            interventional=interventional,
            activations_truth=_with(world.composed(), sums),
            model_truth=truths[arm],
        )
        for arm, reader in readers.items()
    )
    return Testbed(
        name=name,
        seed=seed,
        arms=arms,
        size=Size(
            width=world.pairs + world.distractors,
            k=_K,
            l1_coefficient=2.0,
            tokens=400_000,
            batch_tokens=256,  # more steps: with one active latent many would stay dead
        ),
        own_scores=partial(own_scores, world),
        known=lambda: known_numbers(
            world.colours,
            world.shapes,
            {arm.name: effect_index(world, arm) for arm in arms},
            seed,
        ),
        draw=partial(_draw, world, arms[0]),
    )


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return layer


def _with(truth: Truth, covectors: Tensor) -> Truth:
    return Truth(names=truth.names, scalars=truth.scalars, covectors=covectors.clone())


def effect_index(world: World, arm: Arm, decomposition: Decomposition | None = None) -> float:
    """Interaction index of the arm's mean outputs per pair, through a decomposition if given."""
    effects = cell_means(
        arm.output(decomposition),
        world.cells(arm.data),
        colours=world.colours,
        shapes=world.shapes,
    )
    return interaction_index(effects)


def own_scores(world: World, arm: Arm, decomposition: Decomposition) -> Mapping[str, float]:
    """Interaction index with the reconstruction spliced in, and the form of what was found.

    "composed" and "product" are the mean best |correlation| of one latent each with the pairs, or
    with the colours and shapes; not corrected for chance.
    """
    values = arm.codes(decomposition).dense()
    forms = {"composed": world.composed(), "product": world.products()}
    found = {
        form: match(correlation(values, truth.values(arm.interventional)))
        for form, truth in forms.items()
    }
    index = effect_index(world, arm, decomposition)
    return {
        "interaction_index": index,
        "interaction_index_error": abs(index - effect_index(world, arm)),
        **found,
    }


def _draw(world: World, arm: Arm, decompositions: Mapping[str, Decomposition]) -> Sequence[Grid]:
    shown = [name for name in ("topk", "relu_l1", "pca") if name in decompositions]
    return [_grid(world, arm, name, decompositions[name]) for name in shown]


def _grid(world: World, arm: Arm, name: str, decomposition: Decomposition) -> Grid:
    """The latents that vary most over the pairs, each as a table of colours and shapes."""
    means = cell_means(
        decomposition.encode(arm.activations).dense(),
        world.cells(arm.data),
        colours=world.colours,
        shapes=world.shapes,
    )  # [colour, shape, latent]
    scale = decomposition.directions.norm(dim=1).double()
    tables = (means * scale).permute(2, 0, 1)
    latents = tables.flatten(1).std(1).topk(min(_DRAWN_LATENTS, len(tables))).indices
    return Grid(
        title=f"Latents of {decomposition.name} on the grid of pairs",
        caption=(
            f"Mean value of the {len(latents)} latents of {name!r} that vary most. A composed "
            "latent lights one cell; a latent for a colour lights a row, one for a shape a column."
        ),
        values=tables[latents].flatten(0, 1).float(),
        row_names=tuple(
            f"latent {latent}: colour {i}"
            for latent in latents.tolist()
            for i in range(world.colours)
        ),
        column_names=tuple(f"shape {j}" for j in range(world.shapes)),
    )


def _kind(colours: int, shapes: int) -> TestbedKind:
    world = World(colours=colours, shapes=shapes)
    return TestbedKind(
        name=f"T3.{colours}x{shapes}",
        title=f"Product or composed: {colours} colours, {shapes} shapes",
        claim=(
            "Sparse coding finds a feature for every pair of a colour and a shape, whether the "
            "model reads pairs, colours and shapes, or the exclusive or of both."
        ),
        build=partial(build, world),
        references=("chughtai2025", "anders2024", "ayonrinde2024"),
    )


KINDS: tuple[TestbedKind, ...] = (_kind(2, 2), _kind(4, 4), _kind(10, 10))
