"""SAELens' `SAETrainer`, stepped as its `fit` steps it."""

from itertools import repeat
from typing import Any

import sae_lens
import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer
from torch import Tensor

from benchmarks.peers.trainers.job import Job, threshold_for

_SHARES = (1 / 32, 3 / 32, 7 / 32, 15 / 32, 1.0)  # of the width: the prefixes of all sides


def _settings(job: Job) -> tuple[str, dict[str, Any]]:
    """Class, and what it is told besides sizes; the rest is as the library has it."""
    warmup = job.warmup_steps
    widths = [max(1, int(share * job.width)) for share in _SHARES]
    return {
        "topk": ("TopK", {"k": job.k}),
        "batchtopk": ("BatchTopK", {"k": job.k}),
        "matryoshka": ("MatryoshkaBatchTopK", {"k": job.k, "matryoshka_widths": widths}),
        "jumprelu": ("JumpReLU", {"l0_warm_up_steps": warmup}),
        "relu": ("Standard", {"l1_coefficient": 5.0, "l1_warm_up_steps": warmup}),
        "gated": ("Gated", {"l1_coefficient": 5.0, "l1_warm_up_steps": warmup}),
    }[job.architecture]


ARCHITECTURES = ("topk", "batchtopk", "matryoshka", "jumprelu", "relu", "gated")


class SaeLensTrainer:
    """A trainer on activations that its own scaler scales."""

    def __init__(self, job: Job, sample: Tensor) -> None:
        name, settings = _settings(job)
        config = getattr(sae_lens, f"{name}TrainingSAEConfig")(
            d_in=job.d,
            d_sae=job.width,
            normalize_activations="expected_average_only_in",
            **settings,
        )
        rate = 3e-4 if job.rate is None else job.rate
        own = {"dead_feature_window": job.steps // 10} if job.short_window else {}
        trainer_config = SAETrainerConfig(
            total_training_samples=job.steps * job.batch,
            train_batch_size_samples=job.batch,
            lr=rate,
            lr_end=rate / 10,
            lr_warm_up_steps=job.warmup_steps,
            lr_decay_steps=job.decay_steps,
            **own,
        )
        with torch.random.fork_rng():
            torch.random.default_generator.manual_seed(job.seed)
            self.sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
        self.trainer = SAETrainer(trainer_config, self.sae, repeat(sample))
        self.trainer.activation_scaler.estimate_scaling_factor(job.d, repeat(sample), 1)
        if job.start_l0:
            with torch.no_grad():
                seen = self.sae.process_sae_in(self.trainer.activation_scaler(sample[:256]))
                bound = threshold_for(seen @ self.sae.W_enc, job.k)
                if job.architecture == "jumprelu":
                    self.sae.threshold.data.fill_(bound)
                else:
                    for name in ("b_enc", "b_gate", "b_mag"):
                        if hasattr(self.sae, name):
                            getattr(self.sae, name).data.sub_(bound)

    def step(self, x: Tensor) -> None:
        """One turn of `SAETrainer.fit`, without logs and checkpoints."""
        self.trainer.maybe_reset_sparsity()
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    @torch.no_grad()
    def codes_and_reconstruction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the training sees them."""
        scaler = self.trainer.activation_scaler
        codes = self.sae.encode(scaler(x))
        return codes, scaler.unscale(self.sae.decode(codes))


def make(job: Job, sample: Tensor) -> SaeLensTrainer:
    """The trainer at its start."""
    return SaeLensTrainer(job, sample)
