"""T7: a forest of features, of which readers use the roots, the leaves, or regrouped leaves.

Activations are sums of the active nodes' directions (see `tree_data`): 168 nodes in R^64, each
child active only with its parent. Three readers on the same activations: *roots* gives the eight
roots' values, *leaves* the 128 leaves', *regrouped* the sums of eight random groups of sixteen
leaves. All are exact on the data and on the interventional inputs, where roots are independent,
branches equally likely and paths as likely to end at each level.

All 168 nodes show in the activations; the activations' truth of an arm is those that its reader
does not use as they are: children and leaves, roots and children, all. So V is 1 for the used
level alone, about 0.5 for a decomposition that finds all nodes, in whatever arm, and 0 for the
other levels.

The testbed's own score is `splitting`: do latents that feature splitting puts near each other (the
parents are their nearest directions in TopK dictionaries of 8 and 32 latents) do the same
downstream? For latents that point along whole paths, root + child + leaf, the answer is known:

- *roots*: two latents do the same iff they share the root. Spearman's rho of {1, 2, 3} with
  {0, 1} is 0.9987 by counting pairs.
- *leaves*: all pairs are equally far apart downstream: 0.
- *regrouped*: groups cut across the tree: about 0.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor, nn

from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm, arm_subject
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.picture import Drawing, Grid
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.scores import correlation, match
from modelassay.testbeds.splitting import (
    ancestors,
    effects,
    splitting_score,
    tree_distance,
)
from modelassay.testbeds.testbed import Size, Testbed
from modelassay.testbeds.tree_data import (
    N_CHILDREN,
    N_LEAVES,
    N_NODES,
    N_ROOTS,
    Forest,
    ancestors_of_leaves,
    make_forest,
    node_values,
)
from modelassay.testbeds.truth import Truth

_N_DATA, _N_INTERVENTIONAL = 20_000, 4_000
_FIRST_LEAF = N_ROOTS + N_CHILDREN
_NAMES = (
    *(f"root {i}" for i in range(N_ROOTS)),
    *(f"child {i}" for i in range(N_CHILDREN)),
    *(f"leaf {i}" for i in range(N_LEAVES)),
)
_ALIVE = 10  # inputs of the data on which a latent must be active to have an effect (ours)
NARROWER = (Size(width=8, k=2, tokens=200_000), Size(width=32, k=3, tokens=200_000))
"""The dictionaries that latents have their ancestors in."""
SIZE = Size(width=N_NODES, k=4, tokens=600_000)

Lineage = Callable[[], Sequence[Decomposition]]


class _Trunk(nn.Module):
    directions: Tensor

    def __init__(self, directions: Float[Tensor, "node d"]) -> None:
        super().__init__()
        self.register_buffer("directions", directions)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.directions


class NodeReader(nn.Module):
    """``groups @ ReLU(covectors @ x)``."""

    covectors: Tensor
    groups: Tensor

    def __init__(
        self, covectors: Float[Tensor, "node d"], groups: Float[Tensor, "output node"]
    ) -> None:
        super().__init__()
        self.register_buffer("covectors", covectors)
        self.register_buffer("groups", groups)

    def forward(self, x: Tensor) -> Tensor:
        """The sums of the values of the nodes in each group."""
        return (x @ self.covectors.T).relu() @ self.groups.T


def _groups(seed: int) -> Mapping[str, Float[Tensor, "output node"]]:
    """Which nodes each output of each arm's reader adds up."""
    every = torch.eye(N_NODES)
    order = torch.randperm(N_LEAVES, generator=derived(seed, "T7", "groups"))
    regrouped = every[_FIRST_LEAF:][order].reshape(N_ROOTS, -1, N_NODES).sum(1)
    return {"roots": every[:N_ROOTS], "leaves": every[_FIRST_LEAF:], "regrouped": regrouped}


def build(seed: int) -> Testbed:
    """The testbed: three arms."""
    forest = make_forest(seed)
    trunk = _Trunk(forest.directions)
    data = node_values(seed, "data", _N_DATA, independent=False)
    interventional = node_values(seed, "interventional", _N_INTERVENTIONAL, independent=True)
    arms = tuple(
        Arm(
            name=name,
            subject=arm_subject(f"T7 {name}", trunk, NodeReader(forest.covectors, groups)),
            data=data,
            interventional=interventional,
            activations_truth=_nodes(_unused(groups), forest.directions),
            model_truth=_model_truth(groups, forest),
        )
        for name, groups in _groups(seed).items()
    )

    @cache
    def narrower() -> Sequence[Decomposition]:
        # The activations are the same in all arms, and so are these.
        return [METHODS["topk"].make(arms[0], size, seed) for size in NARROWER]

    return Testbed(
        name="T7",
        seed=seed,
        arms=arms,
        size=SIZE,
        own_scores=lambda arm, found: own_scores(arm, found, narrower),
        known=lambda: known(arms, forest),
        draw=lambda found: draw(arms, found, narrower),
    )


def _unused(groups: Float[Tensor, "output node"]) -> Int[Tensor, " unused"]:
    """Nodes that are not an output of their own."""
    alone = groups[groups.sum(1) == 1].sum(0)
    return (alone == 0).nonzero()[:, 0]


def _nodes(chosen: Int[Tensor, " chosen"], vectors: Float[Tensor, "node d"]) -> Truth:
    """Some nodes as features, with the covectors given for all."""
    return Truth(
        names=tuple(_NAMES[i] for i in chosen.tolist()),
        scalars=lambda inputs: inputs[:, chosen],
        covectors=vectors[chosen],
    )


def _model_truth(groups: Float[Tensor, "output node"], forest: Forest) -> Truth:
    if bool((groups.sum(1) == 1).all()):
        return _nodes(groups.argmax(1), forest.covectors)
    # A group is read with sixteen covectors, not one: no S_graph.
    return Truth(
        names=tuple(f"group {i}" for i in range(len(groups))),
        scalars=lambda inputs: inputs @ groups.T,
    )


def own_scores(arm: Arm, found: Decomposition, narrower: Lineage) -> Mapping[str, float]:
    """Spearman's rho of the tree of feature splitting with the effects, and the living latents."""
    values = found.encode(arm.activations).dense()
    alive = ((values != 0).sum(0) >= _ALIVE).nonzero()[:, 0]
    if len(alive) < 3:
        return {"splitting": 0.0, "latents alive": float(len(alive))}
    directions = found.directions[alive]
    lineage = ancestors(directions, [each.directions for each in narrower()])
    effect = effects(_reader(arm), arm.activations, values[:, alive], directions)
    return {
        "splitting": splitting_score(lineage, effect),
        "latents alive": float(len(alive)),
    }


def _reader(arm: Arm) -> nn.Module:
    return arm.subject.module.get_submodule("reader")


def splitting_of_paths(arm: Arm, forest: Forest) -> float:
    """The splitting score of latents that point along the whole paths, in the true tree."""
    values = arm.data[:, _FIRST_LEAF:]
    effect = effects(_reader(arm), arm.activations, values, forest.paths)
    return splitting_score(ancestors_of_leaves(), effect)


def rho_if_roots_decide() -> float:
    """Spearman's rho of tree distance with "another root", over pairs of leaves."""
    lineage = ancestors_of_leaves()
    upper = torch.triu_indices(N_LEAVES, N_LEAVES, offset=1)
    tree = tree_distance(lineage)[upper[0], upper[1]]
    apart = lineage[upper[0], 0] != lineage[upper[1], 0]
    return float(spearmanr(tree.numpy(), apart.numpy()).statistic)


def known(arms: Sequence[Arm], forest: Forest) -> Sequence[KnownNumber]:
    """The exactness of the readers, and the splitting score of whole paths in every arm."""
    exact = KnownNumber(
        name="largest error of any reader's output on the interventional inputs",
        expected=0.0,
        tolerance=1e-4,
        measured=max(
            float((arm.output(inputs=arm.interventional) - _wanted(arm)).abs().max())
            for arm in arms
        ),
        source="by construction",
    )
    expected = {"roots": rho_if_roots_decide(), "leaves": 0.0, "regrouped": 0.0}
    splitting = [
        KnownNumber(
            name=f"splitting score of whole paths, {arm.name}",
            expected=expected[arm.name],
            tolerance=0.05,
            measured=splitting_of_paths(arm, forest),
            source="by counting pairs",
        )
        for arm in arms
    ]
    return [exact, *splitting]


def _wanted(arm: Arm) -> Tensor:
    return arm.model_truth.values(arm.interventional)


def draw(
    arms: Sequence[Arm], found: Mapping[str, Decomposition], narrower: Lineage
) -> Sequence[Drawing]:
    """How well the nodes of each level, and each arm's features, are matched at each width."""
    by_width = {f"TopK {each.width}": each for each in narrower()} | dict(found)
    rows: list[Tensor] = []
    for decomposition in by_width.values():
        codes = arms[0].codes(decomposition).dense()
        nodes = arms[0].interventional
        features = [
            nodes[:, :N_ROOTS],
            nodes[:, N_ROOTS:_FIRST_LEAF],
            nodes[:, _FIRST_LEAF:],
            arms[-1].model_truth.values(nodes),
        ]
        rows.append(torch.tensor([match(correlation(codes, each)) for each in features]))
    return [
        Grid(
            title="Which level of the tree each dictionary finds",
            caption="Mean correlation of the features of each level with their latents (before "
            "the correction for chance). Width decides what is found; what the model uses "
            "does not.",
            values=torch.stack(rows),
            row_names=tuple(by_width),
            column_names=("roots", "children", "leaves", "regrouped leaves"),
        )
    ]


KINDS: tuple[TestbedKind, ...] = (
    TestbedKind(
        name="T7",
        title="A tree of features, used at one level",
        claim="A dictionary splits features as the data does, level by level; whether a level is "
        "the model's is decided by what reads it.",
        build=build,
        references=("chanin2026",),
    ),
)
