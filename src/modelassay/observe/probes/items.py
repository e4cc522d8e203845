"""Items to probe: labelled places in contexts, and reading them in a model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ShapeError, TooFewTokensError, UnknownNameError
from modelassay.observe.probes.data import ProbeData, numbered
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

POOLS = ("token", "mean", "max")


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeItems:
    """Labelled places in contexts. A place is what the model had read when it got there."""

    tokens: Int[Tensor, "context token"]
    mask: Bool[Tensor, "context token"]
    """True for tokens, False for padding on the right."""
    places: Int[Tensor, "item 2"]
    """Context and position of each item."""
    labels: Int[Tensor, " item"]
    groups: Int[Tensor, " item"]
    group_names: tuple[str, ...]
    classes: tuple[str, ...]
    types: Int[Tensor, " item"]
    """Key of the control task; by default the token at the item."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Int[Tensor, " taken"]) -> "ProbeItems":
        """Some of the items, in this order, with all contexts."""
        return replace(
            self,
            places=self.places[index],
            labels=self.labels[index],
            groups=self.groups[index],
            types=self.types[index],
        )

    def prefixes(self) -> list[list[int]]:
        """The tokens up to and with each item."""
        return [self.tokens[c, : p + 1].tolist() for c, p in self.places.tolist()]


def items_from_prompts(
    prompts: Sequence[Sequence[int]],
    labels: Sequence[int],
    *,
    groups: Sequence[str],
    classes: tuple[str, ...],
    types: Sequence[str] | None = None,
) -> ProbeItems:
    """One item at the end of each prompt.

    Args:
        prompts: token ids.
        groups: name of what must not be torn apart: prompts of one template, noun or document.
        types: key of the control task; by default the last token.

    Raises:
        TooFewTokensError: if a prompt is empty, or there is none.
        ShapeError: if the columns differ in length.
    """
    if not prompts or not all(prompts):
        raise TooFewTokensError(
            f"Prompts must hold at least one token each; got {len(prompts)} prompts, "
            f"{sum(not prompt for prompt in prompts)} of them empty. Leave these out."
        )
    columns = [len(prompts), len(labels), len(groups)] + ([len(types)] if types else [])
    if len(set(columns)) > 1:
        raise ShapeError(
            f"Prompts, labels, groups and types must be as many; got {columns}. Give one a prompt."
        )
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    tokens = torch.zeros(mask.shape, dtype=torch.int64)
    tokens[mask] = torch.tensor([token for prompt in prompts for token in prompt])
    group, names = numbered(groups)
    last = tokens.gather(1, lengths[:, None] - 1)[:, 0]
    return ProbeItems(
        tokens=tokens,
        mask=mask,
        places=torch.stack([torch.arange(len(prompts)), lengths - 1], 1),
        labels=torch.tensor(labels, dtype=torch.int64),
        groups=group,
        group_names=names,
        classes=classes,
        types=last if types is None else numbered(types)[0],
    )


def items_from_contexts(
    contexts: TokenizedCorpus,
    labels: Int[Tensor, "context token"],
    generator: torch.Generator,
    *,
    classes: tuple[str, ...],
    per_class: int = 1000,
) -> ProbeItems:
    """Random tokens of each class; groups are documents, types are token ids.

    Args:
        labels: class of each token; -1 where it is unknown. Only measured tokens are drawn.
        per_class: items of each class, or all if there are fewer.

    Raises:
        ShapeError: if the labels are not those of these contexts.
        TooFewTokensError: if no token has a class.
    """
    if labels.shape != contexts.tokens.shape:
        raise ShapeError(
            f"labels must be {list(contexts.tokens.shape)}, as the tokens; got "
            f"{list(labels.shape)}. Give -1 where there is none."
        )
    chosen: list[Tensor] = []
    for number in range(len(classes)):
        found = ((labels == number) & contexts.measured).nonzero()
        chosen.append(found[torch.randperm(len(found), generator=generator)[:per_class]])
    places = torch.cat(chosen)
    if len(places) == 0:
        raise TooFewTokensError("Items need a labelled token; got none. Label measured tokens.")
    places = places[(places[:, 0] * labels.shape[1] + places[:, 1]).argsort()]
    used, row = places[:, 0].unique(return_inverse=True)
    documents = contexts.corpus.documents
    groups, names = numbered([documents[int(d)].name for d in contexts.document[places[:, 0]]])
    return ProbeItems(
        tokens=contexts.tokens[used],
        mask=contexts.mask[used],
        places=torch.stack([row, places[:, 1]], 1),
        labels=labels[places[:, 0], places[:, 1]].long(),
        groups=groups,
        group_names=names,
        classes=classes,
        types=contexts.tokens[places[:, 0], places[:, 1]],
    )


def read_activations(
    subject: Subject,
    items: ProbeItems,
    sites: Sequence[Site | str],
    *,
    pool: str = "token",
    batch_contexts: int = 32,
) -> dict[Site, ProbeData]:
    """The items' activations at some sites.

    Args:
        pool: "token" for the activation at the item, "mean" or "max" over the tokens up to it.
        batch_contexts: contexts that the model reads at a time.

    Raises:
        UnknownNameError: for an unknown site or pool.
        ShapeError: for a site that has no activation per token.
    """
    if pool not in POOLS:
        raise UnknownNameError("Pool", pool, POOLS)
    resolved = tuple(dict.fromkeys(subject.resolve(site) for site in sites))
    columns: dict[Site, list[Tensor]] = {site: [] for site in resolved}
    order: list[Tensor] = []
    for rows in torch.arange(len(items.tokens)).split(batch_contexts):
        here = (items.places[:, 0] >= rows[0]) & (items.places[:, 0] <= rows[-1])
        places = items.places[here] - torch.tensor([int(rows[0]), 0])
        length = int(items.mask[rows].sum(1).max())
        mask = items.mask[rows, :length]
        run = subject.run(
            items.tokens[rows, :length], mask=None if mask.all() else mask, read=resolved
        )
        order.append(here.nonzero()[:, 0])
        for site, parts in columns.items():
            value = run.activations[site]
            if site.role == "attn_pattern" or value.shape[:2] != mask.shape:
                raise ShapeError(
                    f"A probe must read a site with one activation per token; got {str(site)!r} "
                    f"with {list(value.shape)}. Choose a residual stream or a module's output."
                )
            parts.append(_pooled(value.flatten(2).cpu().float(), places, pool))
    back = torch.cat(order).argsort()
    contexts = _padded(items.prefixes())
    return {
        site: ProbeData(
            activations=torch.cat(parts)[back],
            labels=items.labels,
            groups=items.groups,
            group_names=items.group_names,
            classes=items.classes,
            types=items.types,
            contexts=contexts,
        )
        for site, parts in columns.items()
    }


def _pooled(values: Tensor, places: Int[Tensor, "item 2"], pool: str) -> Tensor:
    if pool == "token":
        return values[places[:, 0], places[:, 1]]
    read = [values[context, : position + 1] for context, position in places.tolist()]
    pooled = [part.mean(0) if pool == "mean" else part.amax(0) for part in read]
    return torch.stack(pooled) if pooled else values.new_zeros(0, values.shape[2])


def _padded(prefixes: Sequence[Sequence[int]]) -> Int[Tensor, "item length"]:
    padded = torch.full((len(prefixes), max(map(len, prefixes))), -1)
    for row, prefix in zip(padded, prefixes, strict=True):
        row[: len(prefix)] = torch.tensor(prefix)
    return padded
