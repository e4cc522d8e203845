"""A forest of features in which a child is active only with its parent.

Eight roots with four children each, and four children of these: 168 nodes in R^64. Every root's
tree has eight dimensions of its own: one for the root, one for each child, and three in which the
four grandchildren of a child are the corners of a tetrahedron, turned at random for every child.
There are more nodes than dimensions, and yet one layer of ReLUs reads every node exactly: with the
coordinates u of the root and of the child, and the corner t of a grandchild,

    root = u_root,   child = u_child,   grandchild = ReLU(t . x - 2 (u_root - u_child))

where the last is silent unless the child has the root's size, and siblings' corners have
negative products.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.core.randomness import derived

N_ROOTS, BRANCHING = 8, 4
N_CHILDREN = N_ROOTS * BRANCHING
N_LEAVES = N_CHILDREN * BRANCHING
N_NODES = N_ROOTS + N_CHILDREN + N_LEAVES
D = 64
_BLOCK = D // N_ROOTS
_GATE = 2.0  # anything above 1 silences the grandchildren of other children
_P_ROOT = 0.2
_P_NEIGHBOUR = 0.5  # on the data, of a root whose left neighbour is active (ours)
_P_STOP = (0.15, 0.25)  # of a path to end at the root, or else at the child, on the data
_TETRAHEDRON = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Forest:
    """Where the nodes point, and what reads them. Roots first, then children, then leaves."""

    directions: Float[Tensor, "node d"]
    covectors: Float[Tensor, "node d"]
    """``ReLU(covectors @ x)`` are the nodes' values."""

    @property
    def paths(self) -> Float[Tensor, "leaf d"]:
        """Unit vectors along root + child + leaf: what a latent of a leaf that absorbs its
        ancestors points along."""
        leaves = self.directions[N_ROOTS + N_CHILDREN :]
        children = self.directions[N_ROOTS:][parents_of(N_LEAVES)]
        roots = self.directions[:N_ROOTS][ancestors_of_leaves()[:, 0]]
        return torch.nn.functional.normalize(leaves + children + roots, dim=1)


def parents_of(count: int) -> Int[Tensor, " node"]:
    """The parent's number, within its level, of every node of a level with `count` nodes."""
    return torch.arange(count) // BRANCHING


def ancestors_of_leaves() -> Int[Tensor, "leaf 2"]:
    """Root and child of every leaf."""
    children = parents_of(N_LEAVES)
    return torch.stack([children // BRANCHING, children], 1)


def make_forest(seed: int) -> Forest:
    """Blocks for the roots' trees, the leaves' corners turned at random, all in a random basis."""
    basis = torch.linalg.qr(torch.randn(D, D, generator=derived(seed, "T7", "rotation")))[0]
    generator = derived(seed, "T7", "corners")
    levels: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    reads: list[Tensor] = []
    for block in basis.split(_BLOCK):
        root, children, rest = block.split([1, BRANCHING, _BLOCK - 1 - BRANCHING])
        levels[0].append(root)
        levels[1].append(children)
        for child in children:
            turn = torch.linalg.qr(torch.randn(3, 3, generator=generator))[0]
            corners = _TETRAHEDRON @ turn @ rest
            levels[2].append(corners)
            reads.append(corners - _GATE * (root - child))
    directions = torch.cat([torch.cat(level) for level in levels])
    covectors = torch.cat([directions[: N_ROOTS + N_CHILDREN], *reads])
    return Forest(directions=directions, covectors=covectors)


def node_values(
    seed: int, purpose: str, count: int, *, independent: bool
) -> Float[Tensor, "input node"]:
    """Values of the nodes: a path in each active tree, of the root's size s, the leaf at most s.

    Args:
        seed: of the testbed.
        purpose: tells apart what is drawn with one seed.
        count: inputs.
        independent: whether roots are independent, branches equally likely, and paths equally
            likely to end at each level; on the data they are not.
    """
    generator = derived(seed, "T7", purpose)
    active = _active_roots(count, generator, independent=independent)
    size = active * (0.5 + torch.rand(count, N_ROOTS, generator=generator))
    leaf_size = size * (0.5 + 0.5 * torch.rand(count, N_ROOTS, generator=generator))
    chances = torch.ones(BRANCHING) if independent else 1 / torch.arange(1.0, BRANCHING + 1)
    drawn = torch.multinomial(
        chances.expand(2, BRANCHING), count * N_ROOTS, replacement=True, generator=generator
    ).reshape(2, count, N_ROOTS)
    stops = (1 / 3, 1 / 2) if independent else _P_STOP
    goes_on = (
        torch.rand(2, count, N_ROOTS, generator=generator) >= torch.tensor(stops)[:, None, None]
    )
    child_on, leaf_on = goes_on[0], goes_on[0] & goes_on[1]
    child = torch.arange(N_ROOTS) * BRANCHING + drawn[0]
    leaf = child * BRANCHING + drawn[1]
    return torch.cat(
        [
            size,
            torch.zeros(count, N_CHILDREN).scatter(1, child, size * child_on),
            torch.zeros(count, N_LEAVES).scatter(1, leaf, leaf_size * leaf_on),
        ],
        1,
    )


def _active_roots(count: int, generator: torch.Generator, *, independent: bool) -> Tensor:
    chance = torch.rand(count, N_ROOTS, generator=generator)
    active = chance < _P_ROOT
    if independent:
        return active
    return active | (active.roll(1, 1) & (chance < _P_NEIGHBOUR))
