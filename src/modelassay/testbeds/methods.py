"""The methods that a league compares: one line each in `METHODS`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from modelassay.core.errors import UnknownNameError
from modelassay.core.progress import SILENT
from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.inference_time import Pursuit
from modelassay.decompositions.linear import PCA, Neurons, RandomDictionary
from modelassay.decompositions.recipes import (
    AbsTopK,
    BatchTopK,
    GroupMax,
    JumpReLU,
    Matryoshka,
    Recipe,
    ReLUL1,
    TopK,
)
from modelassay.fitting.fit import fit
from modelassay.fitting.local_interaction import local_interaction_basis
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.testbed import Size

Make = Callable[[Arm, Size, int], Decomposition]
"""From an arm, the size that its testbed asks for, and a seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A way to take activations apart."""

    name: str
    """As it is asked for: "topk"."""
    title: str
    sees: Literal["activations", "model"]
    """Whether it looks at the audited activations alone, or past them into the model."""
    make: Make


def _fitted(recipe_of: Callable[[Size], Recipe]) -> Make:
    def make(arm: Arm, size: Size, seed: int) -> Decomposition:
        return fit(
            recipe_of(size),
            arm.rows,
            tokens=size.tokens,
            batch_tokens=size.batch_tokens,
            seed=seed,
            progress=SILENT,
        )

    return make


def _random(arm: Arm, size: Size, seed: int) -> Decomposition:
    return RandomDictionary(
        size.width,
        arm.rows.width(),
        size.k,
        mean=arm.rows.select("fit").moments().mean.float(),
        generator=derived(seed, "random"),
        site=arm.site,
    )


def _pca(arm: Arm, size: Size, seed: int) -> Decomposition:
    del size, seed
    return PCA.from_moments(arm.rows.select("fit").moments(), site=arm.site)


_INPUTS = 4096  # that the local interaction basis is computed on (ours)
_OUTPUT_DIRECTIONS = 64  # of outputs wider than this, as many random combinations (ours)


def _local_interaction(arm: Arm, size: Size, seed: int) -> Decomposition:
    n_outputs = arm.output(inputs=arm.data[:1]).shape[-1]
    return local_interaction_basis(
        arm.subject,
        arm.site,
        arm.data[~arm.rows.heldout][:_INPUTS],
        batch=_INPUTS,
        output_directions=_OUTPUT_DIRECTIONS if n_outputs > _OUTPUT_DIRECTIONS else None,
        generator=derived(seed, "local interaction"),
        progress=SILENT,
    )


_topk = _fitted(lambda size: TopK(width=size.width, k=size.k))


def _pursuit(arm: Arm, size: Size, seed: int) -> Decomposition:
    base = _topk(arm, size, seed)
    return Pursuit(base, k=min(size.k, base.d_in))


_ALL = (
    Method(
        name="neurons",
        title="Neurons",
        sees="activations",
        make=lambda arm, _size, _seed: Neurons(arm.rows.width(), arm.site),
    ),
    Method(name="pca", title="PCA", sees="activations", make=_pca),
    Method(name="random", title="Random directions", sees="activations", make=_random),
    Method(
        name="frozen",
        title="TopK, frozen decoder",
        sees="activations",
        make=_fitted(lambda size: TopK(width=size.width, k=size.k, frozen_decoder=True)),
    ),
    Method(name="topk", title="TopK", sees="activations", make=_topk),
    Method(name="pursuit", title="TopK, codes by OMP", sees="activations", make=_pursuit),
    Method(
        name="batchtopk",
        title="BatchTopK",
        sees="activations",
        make=_fitted(lambda size: BatchTopK(width=size.width, k=size.k)),
    ),
    Method(
        name="matryoshka",
        title="Matryoshka BatchTopK",
        sees="activations",
        make=_fitted(lambda size: Matryoshka(width=size.width, k=size.k)),
    ),
    Method(
        name="jumprelu",
        title="JumpReLU",
        sees="activations",
        make=_fitted(lambda size: JumpReLU(width=size.width, target_l0=float(size.k))),
    ),
    Method(
        name="abstopk",
        title="AbsTopK",
        sees="activations",
        make=_fitted(lambda size: AbsTopK(width=size.width, k=size.k)),
    ),
    Method(
        name="groupmax",
        title="GroupMax",
        sees="activations",
        make=_fitted(lambda size: GroupMax(width=size.width - size.width % size.k, k=size.k)),
    ),
    Method(
        name="relu_l1",
        title="ReLU + L1",
        sees="activations",
        make=_fitted(lambda size: ReLUL1(width=size.width, l1_coefficient=size.l1_coefficient)),
    ),
    Method(
        name="lib",
        title="Local interaction basis",
        sees="model",
        make=_local_interaction,
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""Name -> method; a later method joins with one entry."""


def method_named(name: str) -> Method:
    """A method by its name.

    Raises:
        UnknownNameError: if there is none of that name; near misses are suggested.
    """
    if name not in METHODS:
        raise UnknownNameError("Method", name, METHODS)
    return METHODS[name]
