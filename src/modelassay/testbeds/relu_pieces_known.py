"""The numbers that are known about x² from ten ReLUs, for both layouts of the knots."""

from collections.abc import Sequence

import torch
from torch import Tensor

from modelassay.core.progress import SILENT
from modelassay.core.randomness import derived
from modelassay.fitting.local_interaction import local_interaction_basis
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.hinges import TARGETS, Hinges, grid, one_sided, two_sided
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.scores import cosine


def known(square: Arm) -> list[KnownNumber]:
    """All of them, the geometry on a fine grid and without the rotation.

    Args:
        square: the arm that reads x², for the local interaction basis.
    """
    return [
        *_known_of_layout("one-sided", one_sided(), (0.018, 0.606, 0.230, 0.442)),
        *_known_of_layout("two-sided", two_sided(), (0.0, 0.802, 0.0, 0.518)),
        *_known_of_one_sided(),
        *_known_of_chance(),
        *_known_of_local_interaction(square),
    ]


def _known_of_layout(title: str, hinges: Hinges, cosines: Sequence[float]) -> list[KnownNumber]:
    _, components = _components(hinges)
    w = hinges.read_out(TARGETS["square"]).weights
    found = (components @ (w / w.norm())).abs()
    return [
        _number(f"{title}: |cos(w, PC{k + 1})|", expected, 0.001, found[k])
        for k, expected in enumerate(cosines)
    ]


def _components(hinges: Hinges) -> tuple[Tensor, Tensor]:
    """Principal variances and components on the grid, largest first."""
    variances, columns = torch.linalg.eigh(hinges(grid()).T.cov(correction=0))
    return variances.flip(0), columns.flip(1).T


def _known_of_one_sided() -> list[KnownNumber]:
    hinges, x = one_sided(), grid()
    read_out = hinges.read_out(TARGETS["square"])
    variances, components = _components(hinges)
    unit = read_out.weights / read_out.weights.norm()
    share = (components @ unit).square() @ variances / variances.sum()
    score = hinges(x) @ components[1]
    correlation = torch.corrcoef(torch.stack([score, x.square()]))[0, 1].abs()
    spacing = 2 / len(hinges)
    measured = {
        "FVU of x²": (1.0e-4, 5e-6, read_out.fvu),
        "largest error of x²": (6.7e-3, 5e-5, read_out.largest_error),
        "MSE of x² (h⁴/180, h = 0.2)": (spacing**4 / 180, 5e-8, read_out.mean_squared_error),
        "share of variance of PC1": (0.960, 5e-4, variances[0] / variances.sum()),
        "share of variance along w": (0.013, 5e-4, share),
        "correlation of PC2's score with x²": (0.961, 5e-4, correlation),
        "largest |cos(w, neuron)|": (0.83, 0.005, unit.abs().max()),
    }
    return [_number(f"one-sided: {name}", *values) for name, values in measured.items()]


def _known_of_chance() -> list[KnownNumber]:
    """The best of ten orthonormal directions: the largest entry of a random unit vector."""
    vectors = torch.randn(100_000, 10, generator=derived(0, "T4a", "chance"))
    best = torch.nn.functional.normalize(vectors, dim=1).abs().amax(1)
    low, high = best.quantile(torch.tensor([0.05, 0.95])).tolist()
    return [
        _number("chance: best |cos| of ten orthonormal directions, mean", 0.61, 0.005, best.mean()),
        _number("chance: the same, 5th percentile", 0.48, 0.005, low),
        _number("chance: the same, 95th percentile", 0.78, 0.005, high),
    ]


def _known_of_local_interaction(square: Arm) -> list[KnownNumber]:
    basis = local_interaction_basis(
        square.subject, square.site, square.data, batch=len(square.data), progress=SILENT
    )
    covectors = square.model_truth.covectors
    assert covectors is not None
    cosine_with_w = cosine(basis.covectors[:1], covectors)[0, 0]
    return [
        _number("local interaction basis: cos(first covector, w)", 1.000, 5e-4, cosine_with_w),
        _number("local interaction basis: directions in use", 1.0, 0.0, float(basis.width)),
    ]


def _number(name: str, expected: float, tolerance: float, measured: float | Tensor) -> KnownNumber:
    return KnownNumber(
        name=name,
        expected=expected,
        tolerance=tolerance,
        measured=float(measured),
        source="derived: x uniform on [-1, 1], ten hinges, no rotation",
    )
