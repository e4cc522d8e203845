"""Our own learner, as `fit` runs it."""

import dataclasses

import torch
from torch import Tensor

from benchmarks.peers.trainers.job import Job, threshold_for
from modelassay.activations.statistics import Moments
from modelassay.decompositions.recipes import RECIPES, Recipe
from modelassay.decompositions.sparsifiers import JumpReLUActivation
from modelassay.fitting.learner import Learner
from modelassay.fitting.learners import learners_of
from modelassay.fitting.normalisation import input_scale
from modelassay.fitting.plan import Plan
from modelassay.fitting.trainer import LOOK_EVERY_STEPS
from modelassay.subjects.site import Site

_RECIPES = {
    "topk": "TopK",
    "batchtopk": "BatchTopK",
    "matryoshka": "Matryoshka",
    "jumprelu": "JumpReLU",
    "relu": "ReLUL1",
    "gated": "Gated",
    "p_anneal": "AnnealedL1",
}
ARCHITECTURES = tuple(name for name, recipe in _RECIPES.items() if recipe in RECIPES)


def recipe_of(job: Job) -> Recipe:
    """The recipe with its defaults, at the job's sparsity."""
    recipe = RECIPES[_RECIPES[job.architecture]]
    fields = {field.name for field in dataclasses.fields(recipe)}
    sparsity = {"k": job.k, "target_l0": float(job.k)}
    return recipe(width=job.width, **{n: v for n, v in sparsity.items() if n in fields})


class OurTrainer:
    """A learner on scaled activations, looked at as often as `Trainer` does."""

    def __init__(self, job: Job, sample: Tensor) -> None:
        moments = Moments.of(sample)
        self.scale = input_scale(moments)
        plan = Plan.of(
            [recipe_of(job)],
            site=Site.parse("resid_post.0"),
            tokens=job.steps * job.batch,
            batch_tokens=job.batch,
            learning_rate=job.rate,
            seed=job.seed,
        )
        (self.learner,) = learners_of(plan, moments, self.scale, torch.device("cpu"))
        self.steps_done = 0
        if job.start_l0:
            with torch.no_grad():
                pre = self.learner.dictionary.pre_activations(self.scale * sample[:256])
                start_at(self.learner, threshold_for(pre, job.k))
            self.learner.weights.make()

    def step(self, x: Tensor) -> None:
        """One step of `Trainer`, logs and checkpoints left out."""
        step = self.steps_done
        result = self.learner.step(self.scale * x, step)
        self.steps_done += 1
        if self.steps_done % LOOK_EVERY_STEPS == 0:
            self.learner.measure(*result, step)
            self.learner.census()

    @torch.no_grad()
    def codes_and_reconstruction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As at inference."""
        codes = self.learner.dictionary.encode(self.scale * x)
        return codes.dense(), self.learner.dictionary.decode(codes) / self.scale


def start_at(learner: Learner, bound: float) -> None:
    """Let what exceeds a bound now be active, by the thresholds or else by the biases."""
    activation = learner.dictionary.activation
    if isinstance(activation, JumpReLUActivation):
        activation.threshold.fill_(bound)
        return
    for name, parameter in learner.parameters.items():
        if name in ("b_enc", "parametrisation.bias"):
            parameter.sub_(bound)


def make(job: Job, sample: Tensor) -> OurTrainer:
    """The trainer at its start."""
    return OurTrainer(job, sample)
