"""Probes on real models and real labels: what is encoded beyond controls, and what is used.

    MODELASSAY_SHARED=../shared python -m benchmarks.probes [--brief] [study ...]

With --brief: fewer sites, no online codes, 60 items a causal test.

Every row is a logistic probe on unseen groups with all of its controls. Labels: number of the
subject in agreement prompts (groups are nouns), acceptability (groups are minimal pairs), side of
the Mississippi of American cities (groups are states), inside quotation marks in stories, and
inside strings and comments in Python (groups are documents).
"""

import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus, read_texts, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import BarProgress
from modelassay.core.randomness import derived
from modelassay.explain.concepts import concept_labels
from modelassay.observe.probes.behaviour import Choices
from modelassay.observe.probes.items import ProbeItems, items_from_contexts, items_from_prompts
from modelassay.observe.probes.logistic import Logistic
from modelassay.observe.probes.report import ProbeReport, table
from modelassay.observe.probes.sites import probe_sites
from modelassay.observe.probes.study import Study
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

DATA = Path(os.environ.get("MODELASSAY_SHARED", "../shared")) / "data"
METHOD = Logistic()
N_PROMPTS, PER_CLASS = 400, 500
BRIEF = "--brief" in sys.argv
MISSISSIPPI = -91.2  # degrees of longitude, about


def ids_of(subject: Subject, text: str) -> list[int]:
    """Token ids, without special tokens."""
    assert subject.tokenizer is not None
    return subject.tokenizer(text, add_special_tokens=False)["input_ids"]


def layers(subject: Subject) -> list[str]:
    """The stream that enters the model, and the one after every block."""
    after = [f"resid_post.{layer}" for layer in range(subject.n_layers)]
    return ["resid_pre.0", *(after[1::2] if BRIEF else after)]


def studied(
    subject: Subject,
    items: ProbeItems,
    concept: str,
    choices: Choices | None = None,
    pool: str = "token",
) -> tuple[ProbeReport, ...]:
    """All controls at all layers."""
    return probe_sites(
        subject, items, layers(subject), METHOD,
        concept=concept, choices=choices, pool=pool, progress=BarProgress(),
        study=Study(description_length=not BRIEF), most_causal=60 if BRIEF else 120,
    )  # fmt: skip


def agreement(name: str, concept: str) -> tuple[ProbeReport, ...]:
    """Number of the subject at the end of a prompt, and the verb that the model prefers."""
    subject = load_subject(DATA / "babyllama105")
    lines = (DATA / "labelled_sva" / f"{name}.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:N_PROMPTS]]
    texts, labels, groups, types, answers = [], [], [], [], []
    for row in rows:
        noun = "/".join(sorted((row["clean_prefix"].split()[1], row["patch_prefix"].split()[1])))
        plural = row["case"].startswith("plural")
        pair = (row["clean_answer"], row["patch_answer"])
        for text, label in ((row["clean_prefix"], plural), (row["patch_prefix"], not plural)):
            texts.append(text)
            labels.append(int(label))
            groups.append(noun)
            types.append(text.split()[-1])
            answers.append(pair[::-1] if plural else pair)
    prompts = [ids_of(subject, text) for text in texts]
    items = items_from_prompts(
        prompts, labels, groups=groups, classes=("singular", "plural"), types=types
    )
    options = [(ids_of(subject, one), ids_of(subject, two)) for one, two in answers]
    return studied(subject, items, concept, Choices.of(prompts, options))


def acceptability() -> tuple[ProbeReport, ...]:
    """Good and bad halves of minimal pairs, read at the last character."""
    subject = load_subject(DATA / "babyllama105")
    path = DATA / "labelled_blimp" / "regular_plural_subject_verb_agreement_1.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:N_PROMPTS]]
    texts = [row[f"sentence_{kind}"] for row in rows for kind in ("bad", "good")]
    items = items_from_prompts(
        [ids_of(subject, text) for text in texts],
        [0, 1] * len(rows),
        groups=[row["pairID"] for row in rows for _ in range(2)],
        classes=("bad", "good"),
        types=[text.split()[-1] for text in texts],
    )
    return studied(subject, items, "acceptable (regular plural agreement)", pool="mean")


def places() -> tuple[ProbeReport, ...]:
    """East or west of the Mississippi, from a city's name."""
    subject = load_subject(DATA / "babyllama105")
    with (DATA / "labelled_places" / "us_cities_3000.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[: 3 * N_PROMPTS]
    items = items_from_prompts(
        [ids_of(subject, row["name"]) for row in rows],
        [int(float(row["longitude"]) < MISSISSIPPI) for row in rows],
        groups=[row["state_name"] for row in rows],
        classes=("east", "west"),
        types=[row["name"].split()[-1] for row in rows],
    )
    return studied(subject, items, "west of the Mississippi (city names)")


def quotations() -> tuple[ProbeReport, ...]:
    """Inside quotation marks, at letters of a story."""
    subject = load_subject(DATA / "babyllama105")
    corpus = read_texts(DATA / "text_tinystories" / "stories.txt")
    assert subject.tokenizer is not None
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=128)[:600]
    labels = torch.full(contexts.tokens.shape, -1)
    for row in range(len(contexts)):
        _quoted(contexts, row, labels)
    return from_contexts(subject, contexts, labels, "inside quotation marks")


def _quoted(contexts: TokenizedCorpus, row: int, labels: Tensor) -> None:
    text = contexts.corpus.documents[int(contexts.document[row])].text
    quotes = [0]
    for letter in text:
        quotes.append(quotes[-1] + (letter == '"'))
    for position, (start, end) in enumerate(contexts.spans[row].tolist()):
        if start >= 0 and text[start:end].isalpha():
            labels[row, position] = quotes[start] % 2


def python(name: str) -> tuple[ProbeReport, ...]:
    """A concept of Python source, in the bundled model."""
    subject = load_subject("bundled")
    corpus = stdlib_corpus()
    assert subject.tokenizer is not None
    contexts = tokenize(corpus, subject.tokenizer, context_tokens=128).take(
        60_000, derived(0, "contexts")
    )
    found = concept_labels(contexts)
    assert found is not None
    number = found.names.index(name)
    labels = found.labels[..., number].long().masked_fill(~found.known[..., number], -1)
    return from_contexts(subject, contexts, labels, f"Python: {name}")


def from_contexts(
    subject: Subject, contexts: TokenizedCorpus, labels: Tensor, concept: str
) -> tuple[ProbeReport, ...]:
    """Tokens of both classes, as many of each."""
    items = items_from_contexts(
        contexts, labels, derived(0, "items"), classes=("no", "yes"), per_class=PER_CLASS
    )
    return studied(subject, items, concept)


STUDIES: dict[str, Callable[[], tuple[ProbeReport, ...]]] = {
    "simple": lambda: agreement("simple_train", "plural subject (simple)"),
    "nounpp": lambda: agreement("nounpp_train", "plural subject (across a phrase)"),
    "blimp": acceptability,
    "places": places,
    "quotations": quotations,
    "string": lambda: python("string"),
    "comment": lambda: python("comment"),
}


def main(names: list[str]) -> None:
    """Print the table of every study."""
    for name in names or list(STUDIES):
        reports = STUDIES[name]()
        first = reports[0]
        print(f"\n## {first.concept}, {first.subject}")
        print(
            f"{first.n_train} + {first.n_test} items in {first.n_train_groups} + "
            f"{first.n_test_groups} groups"
        )
        print(table(reports))
        for report in reports:
            others = "  ".join(
                f"{b.name} {b.scores.accuracy.value:.3f} ({b.lead.value:+.3f} "
                f"[{b.lead.low:+.3f}, {b.lead.high:+.3f}])"
                for b in report.baselines
            )
            codes = "  ".join(f"{n} {c.compression:.2f}" for n, c in report.codes.items())
            erased = "" if report.erased is None else f"{report.erased.auroc.value:.3f}"
            print(f"{report.site}: {others} | codes {codes} | AUROC after LEACE {erased}")
            if report.causal is not None:
                effects = "  ".join(
                    f"{e.name} {e.value} null max {float(e.null.max()):.3f} p {e.p_value:.3f}"
                    for e in report.causal.effects
                )
                print(f"   separation {report.causal.separation} nats; {effects}")
        print("missing:", *first.missing, sep="\n  ")


if __name__ == "__main__":
    main([name for name in sys.argv[1:] if name != "--brief"])
