"""sparsify's `SparseCoder` with the steps of its `Trainer`, which wants a whole language model.

Hook and optimiser step are written after `Trainer.fit` for one autoencoder in one process: unit
decoder, loss, backward, the projection of the decoder's gradient, optimiser, dead latents.
"""

import torch
from schedulefree import ScheduleFreeWrapper
from sparsify import SparseCoder, SparseCoderConfig
from sparsify.sign_sgd import SignSGD
from torch import Tensor
from transformers import get_linear_schedule_with_warmup

from benchmarks.peers.trainers.job import Job

ARCHITECTURES = ("topk",)
_REVIVAL = 1 / 32  # weight of the revival of dead latents; the library's own default is none
_OWN_WINDOW = 10_000_000


class SparsifyTrainer:
    """One coder, on activations as they come: its loss has no scale."""

    def __init__(self, job: Job, sample: Tensor) -> None:
        with torch.random.fork_rng():
            torch.random.default_generator.manual_seed(job.seed)
            self.coder = SparseCoder(job.d, SparseCoderConfig(num_latents=job.width, k=job.k))
        parameters = list(self.coder.parameters())
        by_width = (job.width / 2**14) ** 0.5
        self.schedules: list[torch.optim.lr_scheduler.LRScheduler] = []
        if job.trainer.endswith("(signum)"):
            rate = 5e-3 / by_width if job.rate is None else job.rate
            group = {"params": parameters, "lr": rate}
            self.optimizer = ScheduleFreeWrapper(SignSGD([group]), momentum=0.95)
            self.optimizer.train()
        else:
            rate = 2e-4 / by_width if job.rate is None else job.rate
            self.optimizer = torch.optim.Adam([{"params": parameters, "lr": rate}])
            self.schedules.append(
                get_linear_schedule_with_warmup(self.optimizer, job.warmup_steps, job.steps)
            )
        self.auxk_alpha = _REVIVAL if job.short_window else 0.0
        self.window = job.steps * job.batch // 10 if job.short_window else _OWN_WINDOW
        self.silence = torch.zeros(job.width, dtype=torch.long)
        self.did_fire = torch.zeros(job.width, dtype=torch.bool)
        self.fvu = 0.0
        self.coder.b_dec.data = sample.mean(0)

    def step(self, x: Tensor) -> None:
        """The hook, and the step after it."""
        coder = self.coder
        coder.set_decoder_norm_to_unit_norm()
        dead = self.silence > self.window if self.auxk_alpha > 0 else None
        total_variance = (x - x.mean(0)).pow(2).sum()
        out = coder(x=x, y=x, dead_mask=dead, total_variance=total_variance)
        self.did_fire[out.latent_indices.flatten()] = True
        self.fvu = float(out.fvu.detach())
        loss = out.fvu + self.auxk_alpha * out.auxk_loss + out.multi_topk_fvu / 8
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        for schedule in self.schedules:
            schedule.step()
        self.silence += len(x)
        self.silence[self.did_fire] = 0
        self.did_fire.zero_()

    @torch.no_grad()
    def codes_and_reconstruction(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As saved: a schedule-free optimiser's weights are averages outside of training."""
        averages = isinstance(self.optimizer, ScheduleFreeWrapper)
        if averages:
            self.optimizer.eval()
        values, indices, _ = self.coder.encode(x)
        codes = values.new_zeros(len(x), self.coder.num_latents).scatter_(1, indices, values)
        reconstruction = self.coder.decode(values, indices)
        if averages:
            self.optimizer.train()
        return codes, reconstruction


def make(job: Job, sample: Tensor) -> SparsifyTrainer:
    """The trainer at its start."""
    return SparsifyTrainer(job, sample)
