"""Write the bundled subject's model card, with every figure measured anew.

    python -m tools.bundled.card

Writes `README.md` and `metrics.json` beside the weights.
"""

import csv
import json
import math
import platform
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlamaForCausalLM

from modelassay.activations.corpus import tokenize
from modelassay.activations.stdlib import stdlib_corpus
from tools.bundled.ngram import heldout_losses
from tools.bundled.train import CONTEXT, HERE, heldout_loss

TEMPLATE = Path(__file__).with_name("card_template.md")


def measure(folder: Path) -> dict[str, Any]:
    """All figures of the card."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    fit, held = stdlib_corpus(with_tests=True).select("fit"), stdlib_corpus().select("heldout")
    heldout = tokenize(held, tokenizer, context_tokens=CONTEXT)
    config, weights = model.config, (folder / "model.safetensors").stat().st_size
    return {
        "architecture": type(model).__name__,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "mlp": config.intermediate_size,
        "context": CONTEXT,
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": weights / 2**20,
        "dtype": str(model.dtype).removeprefix("torch."),
        "vocabulary": len(tokenizer),
        "uniform_loss": math.log(len(tokenizer)),
        "python": platform.python_version(),
        "fit_documents": len(fit.documents),
        "heldout_documents": len(held.documents),
        "transformer_loss": heldout_loss(model, heldout),
        **heldout_losses(tokenizer, len(tokenizer)),
        **training_summary(folder / "training_log.csv"),
    }


def training_summary(log: Path) -> dict[str, float]:
    """The last row of a training log, and the last held-out loss in it."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = rows[-1]
    return {
        "steps": int(last["step"]),
        "trained_tokens": int(last["tokens"]),
        "minutes": float(last["minutes"]),
        "last_fit_loss": float(last["fit_loss"]),
        "last_monitor_loss": float([r["heldout_loss"] for r in rows if r["heldout_loss"]][-1]),
    }


def write_card(folder: Path) -> None:
    """Measure, then write `README.md` and `metrics.json` into the folder."""
    metrics = measure(folder)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (folder / "README.md").write_text(card(metrics), encoding="utf-8")


def card(metrics: dict[str, Any]) -> str:
    """The model card for these figures."""
    return TEMPLATE.read_text(encoding="utf-8").format(**metrics)


if __name__ == "__main__":
    write_card(HERE)
    print((HERE / "README.md").read_text(encoding="utf-8"))
