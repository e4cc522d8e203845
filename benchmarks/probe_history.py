"""What a twin of the bundled model learns, where and when: the map in docs/probes.md.

    python -m tools.bundled.train --steps 512 --batch 8 --keep-checkpoints --out ../twin
    python -m benchmarks.probe_history ../twin/checkpoints --steps 0,16,64,128,256,512 \
        --items 600 --tokens 24000

Prints the table of concepts at the last step and the leads by step, and writes the picture to
docs/images/probe_history.svg, or where --out says. The probes read held-out files.
"""

import argparse
from pathlib import Path

from modelassay.activations.corpus import tokenize
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.cli.history_results import checkpoint_folders
from modelassay.core.progress import BarProgress
from modelassay.core.randomness import derived
from modelassay.explain.code_state import code_state
from modelassay.observe.probes.checkpoints import Checkpoint, probe_history
from modelassay.observe.probes.sweep_items import too_few
from modelassay.observe.probes.training_history import TrainingHistory
from modelassay.report.history_picture import history_picture, site_labels
from modelassay.report.probe_history import as_text
from modelassay.subjects.load import load_subject

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "probe_history.svg"
CONTEXT_TOKENS = 256


def measured(
    folders: dict[int, Path], name: str, *, items: int, tokens: int, seed: int
) -> TrainingHistory:
    """The history of these checkpoints."""
    tokenizer = load_subject(folders[max(folders)]).tokenizer
    assert tokenizer is not None
    corpus = stdlib_corpus(with_tests=True).select("heldout")
    contexts = tokenize(corpus, tokenizer, context_tokens=CONTEXT_TOKENS)
    contexts = contexts.take(tokens, derived(seed, "contexts"))
    return probe_history(
        [
            Checkpoint(step=step, name=name, load=lambda folder=folder: load_subject(folder))
            for step, folder in folders.items()
        ],
        contexts,
        [concept for concept in code_state(contexts) if not too_few(contexts, concept)],
        n_items=items,
        seed=seed,
        progress=BarProgress(),
    )


def leads(history: TrainingHistory) -> str:
    """For each concept, the lead over the best control at the chosen site of every step."""
    sites, (value, low, _) = history.chosen_sites(), history.bounds("lead")
    names = site_labels(history.sites)
    lines = ["lead at the chosen site, * where its interval lies above 0"]
    lines.append(" " * 20 + "".join(f"{step:>12}" for step in history.steps))
    for number, concept in enumerate(history.concepts):
        cells: list[str] = []
        for step, site in enumerate(sites[number].tolist()):
            mark = "*" if low[number, site, step] > 0 else " "
            lead = f"{float(value[number, site, step]):+.2f}{mark}"
            cells.append(f"{lead} ({names[site]})".rjust(12))
        lines.append(f"{concept:<20}" + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("--steps", default="", help="some of the kept steps")
    parser.add_argument("--name", default="A twin of the bundled model")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    folders = checkpoint_folders([options.checkpoints])
    chosen = {int(step) for step in options.steps.split(",") if step} or set(folders)
    history = measured(
        {step: folder for step, folder in folders.items() if step in chosen},
        options.name, items=options.items, tokens=options.tokens, seed=options.seed,
    )  # fmt: skip
    print(as_text(history))
    print(leads(history))
    options.out.write_text(history_picture(history), "utf-8")


if __name__ == "__main__":
    main()
