"""The learners of a plan at their start."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.statistics import Moments
from modelassay.core.randomness import derived
from modelassay.fitting.dead_latent_policies import with_dead_latent_policy
from modelassay.fitting.dead_latents import window_tokens
from modelassay.fitting.distributed.processes import ONE_PROCESS, Processes
from modelassay.fitting.learner import Learner
from modelassay.fitting.plan import Plan
from modelassay.fitting.sites import SiteGroup, SiteView
from modelassay.fitting.training import training_of
from modelassay.fitting.weights import DataScale
from modelassay.subjects.site import Site

CHUNK_TOKENS = 1024
"""Tokens whose pre-activations are held at once on CPU: they stay in its cache (ours)."""


def groups_of(
    plan: Plan,
    views: Sequence[SiteView],
    device: torch.device,
    processes: Processes = ONE_PROCESS,
) -> list[SiteGroup]:
    """The learners of every site.

    Args:
        plan: what is trained.
        views: of the plan's sites.
        device: where.
        processes: those that train together.
    """
    workspace = _workspace(plan, device)
    return [
        view.group(
            learners_of(
                plan,
                view.seen,
                view.scale,
                device,
                processes,
                site=view.site,
                workspace=workspace,
                draw=partial(view.sample, seed=plan.seeds[0]),
            ),
            device,
        )
        for view in views
    ]


def learners_of(
    plan: Plan,
    moments: Moments,
    scale: float,
    device: torch.device,
    processes: Processes = ONE_PROCESS,
    *,
    site: Site | None = None,
    workspace: Float[Tensor, " number"] | None = None,
    draw: Callable[[int], Float[Tensor, "token d_in"]] | None = None,
) -> list[Learner]:
    """A site's dictionaries at their start, ready to train on scaled activations.

    Args:
        plan: what is trained.
        moments: of the site's activations, before they are scaled.
        scale: multiplies every activation.
        device: where to train.
        processes: those that train together.
        site: one of the plan's; the first by default.
        workspace: memory for pre-activations, shared with learners of other sites.
        draw: draws so many scaled activations, for recipes that are made of some.
    """
    site = plan.sites[0] if site is None else site
    data = DataScale(
        mean=(scale * moments.mean).to(device, torch.float32),
        total_variance=scale**2 * float(moments.covariance.trace()),
        draw=draw,
    )
    # Drawn on the CPU, so that a seed means the same start on every device.
    dictionaries = [
        recipe.build(
            d_in=len(data.mean),
            d_out=len(data.mean),
            data_mean=data.mean.cpu(),
            generator=derived(seed, "weights"),
            site=site,
        ).to(device)
        for recipe, seed in zip(plan.recipes, plan.seeds, strict=True)
    ]
    workspace = _workspace(plan, device) if workspace is None else workspace
    names = _unique([dictionary.name for dictionary in dictionaries])
    if len(plan.sites) > 1:
        names = [f"{name} at {site}" for name in names]
    return [
        processes.learner(
            name=name,
            dictionary=dictionary,
            training=with_dead_latent_policy(training_of(recipe), plan.options),
            schedule=plan.schedule,
            learning_rate=rate,
            dead_window=window_tokens(plan.tokens),
            data=data,
            # As much as it would have alone: other chunks would round otherwise.
            workspace=workspace[: _rows_at_once(plan, device) * dictionary.width],
            seed=seed,
            options=plan.options,
        )
        for name, dictionary, recipe, rate, seed in zip(
            names, dictionaries, plan.recipes, plan.learning_rates, plan.seeds, strict=True
        )
    ]


def _workspace(plan: Plan, device: torch.device) -> Float[Tensor, " number"]:
    """Memory for the pre-activations of the widest dictionary; the learners take turns."""
    widest = max(recipe.width for recipe in plan.recipes)
    return torch.empty(_rows_at_once(plan, device) * widest, device=device)


def _rows_at_once(plan: Plan, device: torch.device) -> int:
    return CHUNK_TOKENS if device.type == "cpu" else plan.batch_tokens


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a running number where one comes more than once."""
    return [
        f"{name} #{names[: i + 1].count(name)}" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
