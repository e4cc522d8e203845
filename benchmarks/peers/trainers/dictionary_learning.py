"""dictionary_learning's trainers, stepped as its `trainSAE` steps them."""

from typing import Any

import torch
from dictionary_learning.trainers import (
    BatchTopKTrainer,
    GatedSAETrainer,
    JumpReluTrainer,
    PAnnealTrainer,
    StandardTrainer,
    TopKTrainer,
)
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from torch import Tensor

from benchmarks.peers.trainers.job import Job, threshold_for

_PREFIXES = (1 / 32, 2 / 32, 4 / 32, 8 / 32, 17 / 32)  # the prefixes of all sides, as differences
_CLASSES: dict[str, type] = {
    "topk": TopKTrainer,
    "batchtopk": BatchTopKTrainer,
    "matryoshka": MatryoshkaBatchTopKTrainer,
    "jumprelu": JumpReluTrainer,
    "relu": StandardTrainer,
    "gated": GatedSAETrainer,
    "p_anneal": PAnnealTrainer,
}
ARCHITECTURES = tuple(_CLASSES)


def _settings(job: Job) -> dict[str, Any]:
    """What the trainer is told besides sizes; the rest is as the library has it."""
    settings: dict[str, Any] = {
        "warmup_steps": job.warmup_steps,
        "decay_start": job.steps - job.decay_steps,
    }
    if job.rate is not None:
        settings["lr"] = job.rate
    match job.architecture:
        case "topk" | "batchtopk" | "matryoshka":
            settings |= {"k": job.k, "threshold_start_step": job.warmup_steps}
        case _:
            settings |= {"sparsity_warmup_steps": job.warmup_steps}
    match job.architecture:
        case "matryoshka":
            settings["group_fractions"] = list(_PREFIXES)
        case "jumprelu":
            settings["target_l0"] = float(job.k)
        case "p_anneal":
            # From the first step on the library also computes the norm that comes next.
            settings |= {"anneal_start": 1, "p_end": 0.2}
    return settings


class DictionaryLearningTrainer:
    """A trainer on activations of unit mean square, as `normalize_activations` makes them."""

    def __init__(self, job: Job, sample: Tensor) -> None:
        self.norm_factor = float(sample.square().sum(1).mean().sqrt())
        with torch.random.fork_rng():
            torch.random.default_generator.manual_seed(job.seed)
            self.trainer = _CLASSES[job.architecture](
                steps=job.steps,
                activation_dim=job.d,
                dict_size=job.width,
                layer=0,
                lm_name="none",
                device="cpu",
                seed=job.seed,
                **_settings(job),
            )
        if job.short_window:
            self.trainer.dead_feature_threshold = job.steps * job.batch // 10
        self.steps_done = 0
        if job.start_l0:
            self._start_at(sample[:256] / self.norm_factor, job.k)

    @torch.no_grad()
    def _start_at(self, x: Tensor, k: int) -> None:
        """Let k latents a token be active now, by the thresholds or else by the biases."""
        ae = self.trainer.ae
        if hasattr(ae, "threshold"):
            ae.threshold.data.fill_(threshold_for(x @ ae.W_enc, k))
            return
        bound = threshold_for(x @ ae.encoder.weight.T, k)
        for bias in (
            ae.encoder.bias,
            getattr(ae, "gate_bias", None),
            getattr(ae, "mag_bias", None),
        ):
            if bias is not None:
                bias.data.sub_(bound)

    def step(self, x: Tensor) -> None:
        """One turn of `trainSAE`."""
        self.trainer.update(self.steps_done, x / self.norm_factor)
        self.steps_done += 1

    @torch.no_grad()
    def codes_and_reconstruction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the library's forward pass does."""
        codes = self.trainer.ae.encode(x / self.norm_factor)
        return codes, self.trainer.ae.decode(codes) * self.norm_factor


def make(job: Job, sample: Tensor) -> DictionaryLearningTrainer:
    """The trainer at its start."""
    return DictionaryLearningTrainer(job, sample)
