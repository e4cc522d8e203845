"""What a training does about dead latents, whatever its recipe."""

from dataclasses import replace

from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.objectives.pre_activation import PreActivation
from modelassay.fitting.options import TrainingOptions
from modelassay.fitting.resampling import Resampling
from modelassay.fitting.training import Training


def with_dead_latent_policy(training: Training, options: TrainingOptions) -> Training:
    """The training with what the options ask for in the place of its own policy."""
    if options.dead_latents == "default":
        return training
    others = tuple(
        objective
        for objective in training.objectives
        if not isinstance(objective, AuxK | PreActivation)
    )
    bare = replace(training, objectives=others, resampling=None)
    match options.dead_latents:
        case "auxk":
            auxk = AuxK(
                coefficient=options.auxk_coefficient,
                straight_through=options.auxk_straight_through,
            )
            return replace(bare, objectives=(*others, auxk))
        case "pre_activation":
            policy = PreActivation(coefficient=options.pre_activation_coefficient)
            return replace(bare, objectives=(*others, policy))
        case "resample":
            policy = Resampling(
                interval_share=options.resampling_share, gain=options.resampling_gain
            )
            return replace(bare, resampling=policy)
        case "none":
            return bare
