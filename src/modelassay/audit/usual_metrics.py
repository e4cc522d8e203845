"""The field's usual metrics, one number per latent, so that they can be calibrated beside ours.

Most are told of a whole dictionary; these are a latent's part in them.

| metric | a latent's part |
|---|---|
| explained variance | what the reconstruction loses without it |
| cross-entropy recovered | how much the next token's loss changes when it is taken out |
| L0 | its firing rate (`modelassay.evidence.activity`) |
| sparse probing accuracy | balanced accuracy at the concept that it alone tells best |
| detection score | F1 of its best concept label on documents that did not choose it |
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.predictions import log_predictions
from modelassay.evidence.sites import site_of
from modelassay.explain.concept_match import match_concepts
from modelassay.explain.concepts.labels import ConceptLabels
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_CONTEXTS = 8  # texts per latent from which it is taken out (ours)
_BATCH = 8
_BLOCK = 64  # latents whose dense values are held at once


@dataclass(frozen=True, kw_only=True, slots=True)
class UsualMetric:
    """One metric over the chosen latents; NaN where it could not be measured."""

    name: str
    title: str
    values: Float[Tensor, " chosen"]


def explained_variance_parts(
    decomposition: Decomposition,
    codes: Codes,
    activations: Float[Tensor, "token d"],
    latents: Int[Tensor, " chosen"],
) -> UsualMetric:
    """``(E|x - x̂ + z_i d_i|² - E|x - x̂|²) / E|x - mean|²`` of each latent."""
    error = activations.float() - decomposition.decode(codes).detach()
    total = (activations - activations.mean(0)).square().sum()
    directions = decomposition.directions.detach().float()[latents]
    sparse = codes.to_scipy().tocsc()
    parts = torch.zeros(len(latents))
    for number, latent in enumerate(latents.tolist()):
        column = slice(sparse.indptr[latent], sparse.indptr[latent + 1])
        rows = torch.from_numpy(sparse.indices[column]).long()
        z = torch.from_numpy(sparse.data[column]).float()
        direction = directions[number]
        lost = 2 * z * (error[rows] @ direction) + z.square() * direction.square().sum()
        parts[number] = lost.sum() / total
    return UsualMetric(name="explained_variance", title="Explained variance", values=parts)


@torch.no_grad()
def cross_entropy_parts(
    subject: Subject,
    decomposition: Decomposition,
    codes: Codes,
    heldout: Harvest,
    latents: Int[Tensor, " chosen"],
    generator: torch.Generator,
) -> UsualMetric:
    """|Change| of the next token's loss per firing, in nats, when a latent is set to zero.

    Over random held-out texts in which it fires; summed over the whole text. The sign is left out:
    what a planted feature does to the predictions was drawn at random, and so helps as rarely as
    it harms.
    """
    site, rows = site_of(decomposition), heldout.rows
    sparse = codes.to_scipy().tocsc()
    parts = torch.full((len(latents),), torch.nan)
    directions = decomposition.directions.detach().float()
    for number, latent in enumerate(latents.tolist()):
        column = slice(sparse.indptr[latent], sparse.indptr[latent + 1])
        fired = torch.from_numpy(sparse.indices[column]).long()
        z = torch.from_numpy(sparse.data[column]).float()
        texts = rows[fired, 0].unique()
        chosen = texts[torch.randperm(len(texts), generator=generator)[:_CONTEXTS]].sort().values
        rise, firings = 0.0, 0
        for part in chosen.split(_BATCH):
            inside = torch.isin(rows[fired, 0], part)
            place = torch.searchsorted(part, rows[fired[inside], 0])
            position = rows[fired[inside], 1]
            tokens, mask = heldout.contexts.tokens[part], heldout.contexts.mask[part]
            downstream = subject.downstream(site, tokens, mask=mask)
            edited = downstream.activation.clone()
            edited[place, position] -= z[inside, None] * directions[latent]
            follows = mask[:, 1:] & heldout.contexts.measured[part][:, :-1]
            losses = [
                _loss(subject, downstream(x, read=[_last(subject)]).activations, tokens, follows)
                for x in (downstream.activation, edited)
            ]
            rise += losses[1] - losses[0]
            firings += len(position)
        if firings:
            parts[number] = abs(rise) / firings
    return UsualMetric(name="ce_change", title="Cross-entropy recovered", values=parts)


def _last(subject: Subject) -> Site:
    return Site("resid_post", subject.n_layers - 1)


def _loss(
    subject: Subject, activations: dict[Site, Tensor], tokens: Tensor, follows: Tensor
) -> float:
    residual = activations[_last(subject)][:, :-1][follows]
    following = tokens[:, 1:][follows].to(residual.device)
    return -float(log_predictions(subject, residual).gather(1, following[:, None]).double().sum())


def sparse_probing(
    codes: Codes,
    heldout: Harvest,
    labels: ConceptLabels,
    latents: Int[Tensor, " chosen"],
    generator: torch.Generator,
) -> UsualMetric:
    """Balanced accuracy of "the latent is active" at its best concept, on other documents.

    The concept is chosen on one half of the documents and scored on the other (a probe on one
    latent).
    """
    document = heldout.contexts.document[heldout.rows[:, 0]]
    documents = document.unique()
    first = documents[torch.randperm(len(documents), generator=generator)[: len(documents) // 2]]
    choosing = torch.isin(document, first)
    context, position = heldout.rows.unbind(1)
    held = labels.labels[context, position].float()
    found = torch.full((len(latents),), torch.nan)
    place = torch.full((codes.width,), -1)
    for block in torch.arange(len(latents)).split(_BLOCK):
        wanted = latents[block]
        place[wanted] = torch.arange(len(wanted))
        active = codes.only(wanted).dense()[:, wanted].gt(0).float()
        scores = [_balanced(active[half], held[half]) for half in (choosing, ~choosing)]
        best = scores[0].nan_to_num(nan=0).argmax(1)
        found[block] = scores[1].gather(1, best[:, None])[:, 0]
    return UsualMetric(name="sparse_probing", title="Sparse probing accuracy", values=found)


def _balanced(
    active: Float[Tensor, "token latent"], held: Float[Tensor, "token concept"]
) -> Float[Tensor, "latent concept"]:
    hits = active.T @ held
    sensitivity = hits / held.sum(0)
    specificity = 1 - (active.sum(0)[:, None] - hits) / (1 - held).sum(0)
    return (sensitivity + specificity) / 2


def detection_scores(
    codes: Codes,
    heldout: Harvest,
    labels: ConceptLabels,
    latents: Int[Tensor, " chosen"],
    generator: torch.Generator,
) -> UsualMetric:
    """F1 of each latent's best concept label, on the half of the documents that did not choose."""
    matches = match_concepts(codes.only(latents), heldout.contexts, labels, generator)
    assert matches is not None  # there are labels
    values = matches.f1[latents, 0]
    return UsualMetric(name="detection", title="Label detection score", values=values)
