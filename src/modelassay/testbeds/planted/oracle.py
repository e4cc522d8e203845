"""The decomposition that knows where the planted features are."""

import torch

from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.testbeds.planted.arms import PlantedPair


@torch.no_grad()
def oracle_dictionary(pair: PlantedPair) -> Dictionary:
    """A dictionary whose first latents are the planted features, in their order.

    ``z_p = u_p . x`` where the feature fires, else 0. Behind them stand both signs of an
    orthonormal basis of everything else, so that the reconstruction is exact but for what the
    features leave below their threshold.
    """
    planted = pair.planted
    mine = planted.directions
    rest = torch.linalg.svd(mine, full_matrices=True).Vh[len(mine) :]
    directions = torch.cat([mine, rest, -rest])
    thresholds = torch.cat([planted.thresholds, torch.zeros(2 * len(rest))])
    return Dictionary(
        W_enc=directions.T,
        b_enc=torch.zeros(len(directions)),
        W_dec=directions,
        b_dec=torch.zeros(directions.shape[1]),
        activation=JumpReLUActivation(thresholds),
        reads=pair.site,
        writes=pair.site,
        name=f"planted directions ({len(mine)})",
    )
