"""A grid that shows which known features each method found."""

from collections.abc import Mapping

import torch

from modelassay.decompositions.decomposition import Decomposition
from modelassay.testbeds.arm import Arm
from modelassay.testbeds.picture import Grid
from modelassay.testbeds.scores import correlation
from modelassay.testbeds.truth import Truth


def found_grid(
    title: str, arm: Arm, truths: Mapping[str, Truth], decompositions: Mapping[str, Decomposition]
) -> tuple[Grid, ...]:
    """Best |correlation| of a latent with every feature, a column per method.

    Args:
        title: of the grid.
        arm: whose interventional inputs are used.
        truths: what their features are, and the features: rows.
        decompositions: by method; without any there is no grid.
    """
    if not decompositions:
        return ()
    scalars = torch.cat([truth.values(arm.interventional) for truth in truths.values()], 1)
    columns = [
        correlation(arm.codes(each).dense(), scalars).amax(0) for each in decompositions.values()
    ]
    return (
        Grid(
            title=title,
            caption="Best |correlation| of one latent with each feature, on inputs whose bits or "
            "factors are independent. Rows: " + ", then ".join(truths) + ".",
            values=torch.stack(columns, 1),
            row_names=tuple(name for truth in truths.values() for name in truth.names),
            column_names=tuple(decompositions),
        ),
    )
