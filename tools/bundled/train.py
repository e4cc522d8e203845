"""Train the bundled subject: a small Llama on the source of Python's standard library.

    make bundled        # or: python -m tools.bundled.train --minutes 45

Writes config, tokenizer, weights (float32 safetensors), `training_log.csv` and the model card with
held-out loss beside a 5-gram baseline into src/modelassay/subjects/bundled/. Held-out files are
those of `stdlib_corpus(...)`'s split: neither the tokenizer, the model nor the 5-gram saw them.
"""

import argparse
import csv
import math
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from tools.bundled.tokenizer import VOCABULARY, train_tokenizer

HERE = Path(__file__).resolve().parents[2] / "src/modelassay/subjects/bundled/python_llama"
CONTEXT = 256
BATCH = 16  # contexts a step
WARMUP_STEPS = 100
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


def random_contexts(stream: Tensor, starts: Tensor, generator: torch.Generator) -> Tensor:
    """Contexts of BOS and CONTEXT - 1 consecutive tokens that begin anywhere within a file."""
    picked = starts[torch.randint(len(starts), (BATCH,), generator=generator)]
    body = stream[picked[:, None] + torch.arange(CONTEXT - 1)]
    return torch.cat([torch.zeros(BATCH, 1, dtype=torch.int64), body], dim=1)


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


def train(minutes: float, seed: int) -> None:
    """Train for so many minutes, writing checkpoints and the log as it goes."""
    torch.manual_seed(seed)  # noqa: TID251 - a script's own process
    generator = torch.Generator().manual_seed(seed)
    corpus = stdlib_corpus(with_tests=True)
    tokenizer = train_tokenizer(d.text for d in corpus.select("fit").documents)
    HERE.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(HERE)
    model = LlamaForCausalLM(model_config())
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
    groups = optimizers(model)
    rates = [[g["lr"] for g in o.param_groups] for o in groups]
    begin, step, progress = time.monotonic(), 0, 0.0
    with (HERE / "training_log.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(
            ["step", "tokens", "minutes", "learning_rate_factor", "fit_loss", "heldout_loss"]
        )
        while progress < 1:
            progress = (time.monotonic() - begin) / 60 / minutes
            factor = schedule(progress, step)
            for optimizer, base in zip(groups, rates, strict=True):
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * factor
            loss = loss_of(model, random_contexts(stream, positions, generator))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in groups:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 50 == 0 or progress >= 1:
                held = (
                    heldout_loss(model, monitor) if step % 200 == 0 or progress >= 1 else math.nan
                )
                row = [step, step * BATCH * CONTEXT, f"{progress * minutes:.2f}", f"{factor:.3f}",
                       f"{loss.item():.4f}", "" if math.isnan(held) else f"{held:.4f}"]  # fmt: skip
                log.writerow(row)
                file.flush()
                print(*row, flush=True)
            if step % 500 == 0:
                model.save_pretrained(HERE)
    model.eval().save_pretrained(HERE)
    print(f"held-out loss {heldout_loss(model, heldout):.4f} nats per token", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.minutes, options.seed)
