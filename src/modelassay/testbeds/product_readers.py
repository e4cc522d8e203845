"""Three ways to read a colour and a shape, and how much a table of effects interacts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modelassay.core.errors import ShapeError


class Conjunctions(nn.Module):
    """``y = sum_ij ReLU(c_i . x + s_j . x - 1) T_ij``: one unit for every pair."""

    def __init__(
        self,
        colours: Float[Tensor, "colour d"],
        shapes: Float[Tensor, "shape d"],
        table: Float[Tensor, "pair output"],
    ) -> None:
        super().__init__()
        self.covectors = nn.Parameter(pair_sums(colours, shapes))
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        """From activations to outputs."""
        return (x @ self.covectors.T - 1).relu() @ self.table


class Parity(nn.Module):
    """``y = (|u + w| - |u - w|) / 2 v``, with u and w the alternating sums of colours and shapes.

    It is ``sign(u w) min(|u|, |w|)``: of one colour i and one shape j, (-1)^(i + j).
    """

    def __init__(
        self,
        colours: Float[Tensor, "colour d"],
        shapes: Float[Tensor, "shape d"],
        output: Float[Tensor, " output"],
    ) -> None:
        super().__init__()
        rows = [alternating(len(part)) @ part for part in (colours, shapes)]
        self.covectors = nn.Parameter(torch.stack(rows))
        self.output = nn.Parameter(output)

    def forward(self, x: Tensor) -> Tensor:
        """From activations to outputs."""
        return parity_of(*(x @ self.covectors.T).unbind(1))[:, None] * self.output


def pair_sums(
    colours: Float[Tensor, "colour any"], shapes: Float[Tensor, "shape any"]
) -> Float[Tensor, "pair any"]:
    """``c_i + s_j`` for all pairs; j runs faster."""
    return (colours[:, None] + shapes[None]).flatten(0, 1)


def alternating(count: int) -> Float[Tensor, " {count}"]:
    """1, -1, 1, -1, ..."""
    return 1.0 - 2 * (torch.arange(count) % 2)


def parity_of(u: Float[Tensor, " input"], w: Float[Tensor, " input"]) -> Float[Tensor, " input"]:
    """``sign(u w) min(|u|, |w|)``, from four units of ReLU."""
    return ((u + w).abs() - (u - w).abs()) / 2


def cell_means(
    outputs: Float[Tensor, "input output"],
    cells: Int[Tensor, " input"],
    *,
    colours: int,
    shapes: int,
) -> Float[Tensor, "colour shape output"]:
    """Mean output of the inputs with one colour and one shape.

    Args:
        outputs: of a model.
        cells: ``colour * shapes + shape`` of every input; each must occur.
        colours: their number.
        shapes: their number.

    Raises:
        ShapeError: if a pair of colour and shape does not occur.
    """
    counts = torch.bincount(cells, minlength=colours * shapes)
    if len(counts) > colours * shapes or int(counts.min()) == 0:
        raise ShapeError(
            f"Every one of the {colours * shapes} pairs must occur in the inputs; got "
            f"{int((counts > 0).sum())} different ones. Use more inputs."
        )
    sums = outputs.new_zeros(colours * shapes, outputs.shape[1]).double()
    sums.index_add_(0, cells, outputs.double())
    return (sums / counts[:, None]).view(colours, shapes, -1)


def interaction_index(effects: Float[Tensor, "colour shape output"]) -> float:
    """Share of a table's variation that is not a sum of row and column effects, in [0, 1].

    ``|E - row - column + mean|^2 / |E - mean|^2``, summed over the outputs: 0 for ``A_i + B_j``.
    Of independent normal entries its expectation is ``(n-1)(m-1) / (nm-1)``. NaN if the table is
    constant.
    """
    effects = effects.double()
    centred = effects - effects.mean((0, 1))
    rest = centred - centred.mean(0, keepdim=True) - centred.mean(1, keepdim=True)
    total = float(centred.square().sum())
    # A constant table leaves rounding behind, which has no shares.
    if total <= 1e-12 * float(effects.square().sum()):
        return float("nan")
    return float(rest.square().sum()) / total
