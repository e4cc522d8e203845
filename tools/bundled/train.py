"""Train the bundled subject: a small Llama on the source of Python's standard library.

    make bundled        # or: python -m tools.bundled.train --minutes 45
    python -m tools.bundled.train --steps 512 --batch 8 --keep-checkpoints --out ../twin

Writes config, tokenizer, weights (float32 safetensors) and `training_log.csv` into
src/modelassay/subjects/bundled/, or where --out says. Held-out files are those of
`stdlib_corpus(...)`'s split: neither the tokenizer nor the model saw them. With --keep-checkpoints
the models after 0, 1, 2, 4 … steps and after the last stay in `checkpoints/`, and after an
interruption --resume goes on with the very steps that were to come.
"""

import argparse
import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from tools.bundled.checkpoints import RESUME, is_kept, keep, load_state, rows_up_to, save_state
from tools.bundled.tokenizer import VOCABULARY, train_tokenizer

HERE = Path(__file__).resolve().parents[2] / "src/modelassay/subjects/bundled/python_llama"
CONTEXT = 256
BATCH = 16  # contexts a step
WARMUP_STEPS = 100
LOG_EVERY, MEASURE_EVERY, SAVE_EVERY = 50, 200, 100  # steps
LOG_COLUMNS = ["step", "tokens", "minutes", "learning_rate_factor", "fit_loss", "heldout_loss"]
DECAY_SHARE = 0.35  # linear decay to zero over the last part (warm-up, stable, decay)


def model_config() -> LlamaConfig:
    """1.83 M parameters: 7.0 MiB in float32."""
    return LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=512, num_hidden_layers=6,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=CONTEXT,
        tie_word_embeddings=True, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=0, pad_token_id=1,
        rope_theta=10_000.0,
    )  # fmt: skip


def optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for embeddings and norms (Jordan et al. 2024)."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "embed" not in n)]
    return [
        torch.optim.Muon(
            matrices, lr=4e-3, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def random_contexts(
    stream: Tensor, starts: Tensor, generator: torch.Generator, batch: int = BATCH
) -> Tensor:
    """Contexts of BOS and CONTEXT - 1 consecutive tokens that begin anywhere within a file."""
    picked = starts[torch.randint(len(starts), (batch,), generator=generator)]
    body = stream[picked[:, None] + torch.arange(CONTEXT - 1)]
    return torch.cat([torch.zeros(batch, 1, dtype=torch.int64), body], dim=1)


def loss_of(model: LlamaForCausalLM, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean next-token cross-entropy in nats."""
    logits = model(tokens).logits[:, :-1]
    targets = tokens[:, 1:]
    if mask is not None:
        targets = targets.masked_fill(~mask[:, 1:], -100)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


@torch.no_grad()
def heldout_loss(model: LlamaForCausalLM, heldout: TokenizedCorpus) -> float:
    """Mean loss per token over all held-out contexts."""
    total, count = 0.0, 0
    for start in range(0, len(heldout), 32):
        batch = heldout[start : start + 32]
        n = int(batch.mask[:, 1:].sum())
        total += float(loss_of(model, batch.tokens, batch.mask)) * n
        count += n
    return total / count


def schedule(progress: float, step: int) -> float:
    """Factor on the learning rate: linear warm-up, constant, linear decay to zero."""
    return min(1.0, (step + 1) / WARMUP_STEPS, max(0.0, 1 - progress) / DECAY_SHARE)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train, and what to write."""

    out: Path = HERE
    minutes: float = 50.0
    steps: int | None = None
    """Train for so many steps instead of so many minutes: then the result does not depend on the
    machine's speed."""
    batch: int = BATCH
    """Contexts a step."""
    seed: int = 0
    keep_checkpoints: bool = False
    resume: bool = False


class Run:
    """A training run: its model, its draws, and where it stands."""

    def __init__(self, plan: Plan, model: LlamaForCausalLM, tokenizer: Any) -> None:
        self.plan = plan
        self.model = model
        self.tokenizer = tokenizer
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.optimizers = optimizers(model)
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.step, self.minutes_before = 0, 0.0
        self.begin = time.monotonic()
        self.rows = [LOG_COLUMNS]
        if plan.resume and (plan.out / RESUME).is_file():
            facts = load_state(plan.out / RESUME, model, self.optimizers, self.generator)
            if any(facts[name] != getattr(plan, name) for name in ("seed", "steps", "batch")):
                raise SystemExit(f"--resume must repeat the options of the run; got {facts}")
            self.step, self.minutes_before = facts["step"], facts["minutes"]
            self.rows = rows_up_to(plan.out / "training_log.csv", self.step)

    @property
    def minutes(self) -> float:
        """Spent on training, in earlier sittings too."""
        return self.minutes_before + (time.monotonic() - self.begin) / 60

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        if self.plan.steps is not None:
            return self.step / self.plan.steps
        return self.minutes / self.plan.minutes

    def take_step(self, draw: Callable[[torch.Generator], Tensor]) -> tuple[float, float]:
        """One step on drawn contexts: the factor on the rates, and the loss."""
        factor = schedule(self.progress, self.step)
        for optimizer, base in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = rate * factor
        loss = loss_of(self.model, draw(self.generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return factor, loss.item()

    def keep(self) -> None:
        """Keep the model if it is to be kept after this step, and the state to go on from."""
        if not self.plan.keep_checkpoints:
            return
        done = self.progress >= 1
        if is_kept(self.step) or done:
            keep(self.step, self.model, self.tokenizer, self.plan.out)
        if self.step and (self.step % SAVE_EVERY == 0 or is_kept(self.step) or done):
            facts = {
                "step": self.step, "minutes": self.minutes, "steps": self.plan.steps,
                "seed": self.plan.seed, "batch": self.plan.batch,
            }  # fmt: skip
            path = self.plan.out / RESUME
            save_state(path, self.model, self.optimizers, self.generator, facts)


def train_run(
    run: Run, draw: Callable[[torch.Generator], Tensor], measure: Callable[[], float]
) -> None:
    """Train to the end of the plan, writing checkpoints and the log as it goes.

    Args:
        draw: contexts for a step.
        measure: the held-out loss that is logged now and then.
    """
    out = run.plan.out
    out.mkdir(parents=True, exist_ok=True)
    with (out / "training_log.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerows(run.rows)
        run.keep()
        while run.progress < 1:
            factor, loss = run.take_step(draw)
            done = run.progress >= 1
            if run.step % LOG_EVERY == 0 or done:
                held = measure() if run.step % MEASURE_EVERY == 0 or done else math.nan
                tokens = run.step * run.plan.batch * CONTEXT
                row = [run.step, tokens, f"{run.minutes:.2f}", f"{factor:.3f}", f"{loss:.4f}",
                       "" if math.isnan(held) else f"{held:.4f}"]  # fmt: skip
                log.writerow(row)
                file.flush()
                print(*row, flush=True)
            run.keep()
            if run.step % 500 == 0:
                run.model.save_pretrained(out)
    run.model.eval().save_pretrained(out)


def train(plan: Plan) -> None:
    """Train on the standard library as the plan says."""
    torch.manual_seed(plan.seed)  # noqa: TID251 - a script's own process
    corpus = stdlib_corpus(with_tests=True)
    tokenizer = train_tokenizer(d.text for d in corpus.select("fit").documents)
    tokenizer.save_pretrained(plan.out)
    streams, starts, offset = [], [], 0
    for document in corpus.select("fit").documents:
        ids = tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        streams.append(torch.tensor(ids, dtype=torch.int64))
        if len(ids) >= CONTEXT:
            starts.append(torch.arange(offset, offset + len(ids) - CONTEXT + 1))
        offset += len(ids)
    stream, positions = torch.cat(streams), torch.cat(starts)
    heldout = tokenize(stdlib_corpus().select("heldout"), tokenizer, context_tokens=CONTEXT)
    monitor = heldout[:: max(1, len(heldout) // 64)]
    print(f"{len(stream):,} training tokens, {heldout.n_tokens:,} held-out tokens", flush=True)
    run = Run(plan, LlamaForCausalLM(model_config()), tokenizer)
    train_run(
        run,
        lambda generator: random_contexts(stream, positions, generator, plan.batch),
        lambda: heldout_loss(run.model, monitor),
    )
    print(f"held-out loss {heldout_loss(run.model, heldout):.4f} nats per token", flush=True)


def plan_of(arguments: list[str] | None = None) -> Plan:
    """The plan that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--steps", type=int, help="so many steps instead of so many minutes")
    parser.add_argument("--batch", type=int, default=BATCH, help="contexts a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--keep-checkpoints", action="store_true", help="keep the models after 0, 1, 2, 4 … steps"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from where a run with --keep-checkpoints was"
    )
    return Plan(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    train(plan_of())
