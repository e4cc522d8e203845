"""Concepts of tokens, and the items that a sweep over sites and models reads for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ShapeError, TooFewTokensError
from modelassay.core.randomness import derived
from modelassay.observe.probes.data import (
    ProbeData,
    Split,
    group_folds,
    numbered,
    train_test_items,
)
from modelassay.observe.probes.items import ProbeItems
from modelassay.observe.probes.scores import group_weights

N_ITEMS = 1000
N_FOLDS = 3
"""Fewer than for a single probe: a sweep fits thousands (ours)."""
N_RESAMPLES = 500
TEST_SHARE = 0.4
MIN_ITEMS = 20
"""Tokens that each class, or a graded concept, must at least have (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenConcept:
    """Something that is true or false, or has a size, at each token."""

    name: str
    description: str
    """One sentence, shown in reports."""
    values: Float[Tensor, "context token"]
    """1 or 0, or the size; NaN where it is unknown."""
    graded: bool = False
    """Whether the value is a size: read by ridge regression, else by logistic regression."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConceptItems:
    """One concept's items, divided by documents for training and testing.

    Columns have one entry per item; `train` and `test` number the items.
    """

    name: str
    description: str
    graded: bool
    places: Int[Tensor, "item 2"]
    """Context and position."""
    values: Float[Tensor, " item"]
    task_values: Float[Tensor, " item"]
    """A control task: each type has the value of a random item (Hewitt & Liang 2019)."""
    types: Int[Tensor, " item"]
    """The tokens at the items."""
    groups: Int[Tensor, " item"]
    """The documents, as numbers of `group_names`."""
    group_names: tuple[str, ...]
    train: Int[Tensor, " train"]
    test: Int[Tensor, " test"]
    folds: Int[Tensor, " train"]
    weights: Float[Tensor, "resample test"]
    """How often each test item counts: as it is, then in resamples of whole documents."""

    def __len__(self) -> int:
        return len(self.values)


def draw_items(
    contexts: TokenizedCorpus,
    concept: TokenConcept,
    *,
    n_items: int = N_ITEMS,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> ConceptItems:
    """Random measured tokens: as many of either class, or any of a graded concept.

    Documents stay whole in the split, in the folds and in the bootstrap.

    Raises:
        ShapeError: if the concept's values are not those of these contexts.
        TooFewTokensError: if a class, or the concept, has too few tokens or documents.
    """
    if concept.values.shape != contexts.tokens.shape:
        raise ShapeError(
            f"values of {concept.name!r} must be {list(contexts.tokens.shape)}, as the tokens; got "
            f"{list(concept.values.shape)}. Give NaN where there is none."
        )
    places = _drawn(contexts, concept, n_items, derived(seed, "items", concept.name))
    values = concept.values[places[:, 0], places[:, 1]].double()
    documents = contexts.document[places[:, 0]]
    names = [contexts.corpus.documents[number].name for number in documents.tolist()]
    groups, group_names = numbered(names)
    strata = values > values.median()
    if not bool(strata.any()):
        strata = values == values.median()
    data = ProbeData(
        activations=torch.zeros(len(places), 1),
        labels=strata.long(), groups=groups, group_names=group_names,
    )  # fmt: skip
    train, test = train_test_items(
        data, derived(seed, "split", concept.name), test_share=TEST_SHARE
    )
    types = contexts.tokens[places[:, 0], places[:, 1]]
    return ConceptItems(
        name=concept.name, description=concept.description, graded=concept.graded,
        places=places, values=values, types=types, groups=groups, group_names=group_names,
        train=train, test=test,
        task_values=control_values(values, types, derived(seed, "control task", concept.name)),
        folds=group_folds(data.take(train), N_FOLDS, derived(seed, "folds", concept.name)),
        weights=group_weights(groups[test], derived(seed, "resamples", concept.name), n_resamples),
    )  # fmt: skip


def control_values(
    values: Float[Tensor, " item"], types: Int[Tensor, " item"], generator: torch.Generator
) -> Float[Tensor, " item"]:
    """Each type with the value of an item drawn at random: only remembering types gets it right."""
    distinct, owner = types.unique(return_inverse=True)
    drawn = torch.randint(len(values), (len(distinct),), generator=generator)
    return values[drawn][owner]


def token_alone(items: ConceptItems) -> Float[Tensor, " test"]:
    """The mean training value of each test item's own token; one pseudo-item has the overall mean.

    What a reader says who sees the token and nothing before it.
    """
    distinct, owner = items.types.unique(return_inverse=True)
    known = items.values[items.train]
    sums = known.mean().repeat(len(distinct))
    counts = torch.ones(len(distinct), dtype=torch.float64)
    sums.index_add_(0, owner[items.train], known)
    counts.index_add_(0, owner[items.train], torch.ones_like(known))
    return (sums / counts)[owner[items.test]]


def prefixes_split(items: ConceptItems, contexts: TokenizedCorpus) -> Split:
    """Train and test items with the tokens read so far, for the bag of tokens."""
    read = contexts.tokens[items.places[:, 0]].clone()
    read[torch.arange(read.shape[1])[None] > items.places[:, 1:]] = -1
    data = ProbeData(
        activations=torch.zeros(len(items), 1),
        labels=torch.zeros(len(items), dtype=torch.int64),
        groups=items.groups, group_names=items.group_names, contexts=read,
    )  # fmt: skip
    return Split(train=data.take(items.train), test=data.take(items.test))


def together(items: Sequence[ConceptItems], contexts: TokenizedCorpus) -> ProbeItems:
    """The places of several concepts one after another, to be read in one pass of a model."""
    places = torch.cat([each.places for each in items])
    used, row = places[:, 0].unique(return_inverse=True)
    n = len(places)
    return ProbeItems(
        tokens=contexts.tokens[used], mask=contexts.mask[used],
        places=torch.stack([row, places[:, 1]], 1),
        labels=torch.zeros(n, dtype=torch.int64), groups=torch.zeros(n, dtype=torch.int64),
        group_names=("all",), classes=("item",),
        types=contexts.tokens[places[:, 0], places[:, 1]],
    )  # fmt: skip


def too_few(contexts: TokenizedCorpus, concept: TokenConcept) -> str:
    """Why a concept cannot be probed in these contexts; empty if it can."""
    for side in _sides(contexts, concept):
        if int(side.sum()) < MIN_ITEMS:
            return f"{int(side.sum())} tokens of a class, of {MIN_ITEMS} that are needed"
        if concept.graded and len(concept.values[side].unique()) < 2:
            return "only one size"
    return ""


def _sides(contexts: TokenizedCorpus, concept: TokenConcept) -> list[Bool[Tensor, "context token"]]:
    """Where the concept is known, or where it is false and where true."""
    known = contexts.measured & concept.values.isfinite()
    return [known] if concept.graded else [known & (concept.values == side) for side in (0, 1)]


def _drawn(
    contexts: TokenizedCorpus, concept: TokenConcept, n_items: int, generator: torch.Generator
) -> Int[Tensor, "item 2"]:
    reason = too_few(contexts, concept)
    if reason:
        raise TooFewTokensError(
            f"A concept must have at least {MIN_ITEMS} tokens of each class, or two sizes; got, "
            f"for {concept.name!r}, {reason}. Read more texts, or leave the concept out."
        )
    sides = _sides(contexts, concept)
    chosen: list[Tensor] = []
    for side in sides:
        found = side.nonzero()
        order = torch.randperm(len(found), generator=generator)
        chosen.append(found[order[: n_items // len(sides)]])
    places = torch.cat(chosen)
    return places[(places[:, 0] * contexts.tokens.shape[1] + places[:, 1]).argsort()]
