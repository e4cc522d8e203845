"""Matching latents to concepts: slow definition, planted truth, and the null."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from modelassay.core.errors import ShapeError
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.explain.concept_match import MIN_ACTIVE, N_RANKS, match_concepts
from modelassay.explain.concepts import ConceptLabels
from modelassay.explain.half import halves


def contexts_of(sizes):
    """One context a document, of the given numbers of measured tokens behind a BOS."""
    documents = tuple(Document(name=str(i), text="x", split="heldout") for i in range(len(sizes)))
    mask = torch.arange(max(sizes) + 1) <= torch.tensor(sizes)[:, None]
    measured = mask.clone()
    measured[:, 0] = False
    return TokenizedCorpus(
        corpus=Corpus(source="test", documents=documents),
        tokens=torch.zeros(mask.shape, dtype=torch.int64),
        mask=mask, measured=measured, document=torch.arange(len(sizes)),
        spans=torch.zeros(*mask.shape, 2, dtype=torch.int64),
    )  # fmt: skip


def labels_of(contexts, held, known=None):
    known = torch.ones_like(held) if known is None else known
    names = tuple(f"c{i}" for i in range(held.shape[1]))

    def scattered(flat):
        table = torch.zeros(*contexts.measured.shape, flat.shape[1], dtype=torch.bool)
        table[contexts.measured] = flat
        return table

    return ConceptLabels(
        names=names, descriptions=names,
        labels=scattered(held & known), known=scattered(known),
    )  # fmt: skip


@pytest.fixture
def contexts():
    return contexts_of([60, 40, 80, 50, 70, 90, 30, 60, 55, 65, 75, 45])


def random_labels(contexts, n_concepts=6, seed=0):
    draws = torch.rand(contexts.n_tokens, n_concepts, generator=generator(seed))
    return draws < torch.linspace(0.05, 0.6, n_concepts)


def random_codes(contexts, width=8, seed=1, rate=0.2):
    g = generator(seed)
    dense = torch.rand(contexts.n_tokens, width, generator=g)
    return dense * (torch.rand(dense.shape, generator=g) < rate)


def confusion(above, held, known):
    above = above & known
    hits = float((above & held).sum())
    return hits, float(above.sum()), float((held & known).sum())


def test_matches_the_definition(contexts):
    dense = random_codes(contexts)
    held = random_labels(contexts)
    dense[:, 0] = torch.where(held[:, 2], dense[:, 1] + 1, dense[:, 0])
    known = torch.rand(held.shape, generator=generator(5)) < 0.9
    labels = labels_of(contexts, held, known)
    held = held & known
    matches = match_concepts(Codes.from_dense(dense), contexts, labels, generator(3))
    assert matches is not None
    side, _ = halves(Codes.from_dense(dense), contexts, labels, generator(3))
    # Find the first half's tokens again from its documents' sizes and labels.
    documents = contexts.document[contexts.measured.nonzero()[:, 0]]
    first = torch.zeros(contexts.n_tokens, dtype=torch.bool)
    sizes = np.bincount(side.document)
    for index in range(12):
        rows = documents == index
        same = [d for d in range(len(sizes)) if sizes[d] == int(rows.sum())]
        first |= rows & any(
            np.array_equal(side.held[side.document == d], held[rows].numpy()) for d in same
        )
    assert abs(int(first.sum()) - contexts.n_tokens / 2) <= 90
    for latent in range(dense.shape[1]):
        values = dense[:, latent]
        active = values[first][values[first] > 0].sort().values
        limits = [0.0]
        for quantile in (0.25, 0.5, 0.75, 0.9):
            below = int(quantile * len(active))
            limits.append(float(active[below - 1]) if below else 0.0)
        scored = []
        for concept in range(held.shape[1]):
            best = (-np.inf, 0.0)
            for limit in limits:
                args = (values[first] > limit, held[first, concept], known[first, concept])
                hits, predicted, positives = confusion(*args)
                n = float(known[first, concept].sum())
                a, p = predicted / n, positives / n
                excess = 2 * hits / (predicted + positives) - 2 * a * p / (a + p)
                best = max(best, (excess, -limit))
            scored.append((*best, concept))
        ranked = sorted(scored, key=lambda s: (-s[0], s[2]))[:N_RANKS]
        for rank, (excess, minus_limit, concept) in enumerate(ranked):
            if excess <= 1e-6:
                assert matches.indices[latent, rank] == -1
                continue
            assert matches.indices[latent, rank] == concept
            assert matches.thresholds[latent, rank] == pytest.approx(-minus_limit)
            hits, predicted, positives = confusion(
                values[~first] > -minus_limit, held[~first, concept], known[~first, concept]
            )
            assert matches.precision[latent, rank] == pytest.approx(hits / predicted)
            assert matches.recall[latent, rank] == pytest.approx(hits / positives)
            expected = 2 * hits / (predicted + positives)
            assert matches.f1[latent, rank] == pytest.approx(expected)
            assert matches.low[latent, rank] <= expected <= matches.high[latent, rank]
        assert matches.n[latent] == int((values[~first] > 0).sum())


def test_a_planted_concept_is_found_with_its_threshold(contexts):
    held = random_labels(contexts)
    dense = torch.full((contexts.n_tokens, 2), 0.1)
    dense[:, 0] += torch.rand(contexts.n_tokens, generator=generator(4)) * 0.1
    dense[held[:, 4], 0] += 1.0
    matches = match_concepts(
        Codes.from_dense(dense), contexts, labels_of(contexts, held), generator(0)
    )
    assert matches is not None
    assert matches.indices[0, 0] == 4
    assert 0.1 <= matches.thresholds[0, 0] < 1.2
    assert matches.f1[0, 0] > 0.9
    assert matches.null_f1[0] < 0.75
    # A latent that is always active with one value says nothing, although its plain F1 is high.
    assert matches.indices[1].tolist() == [-1, -1, -1]
    assert matches.f1[1].isnan().all()


def test_chance_seldom_exceeds_its_null():
    contexts = contexts_of([200] * 20)
    held = random_labels(contexts, n_concepts=30)
    codes = Codes.from_dense(random_codes(contexts, width=200, rate=0.05))
    matches = match_concepts(codes, contexts, labels_of(contexts, held), generator(0))
    assert matches is not None
    # Exchangeable with the five shifts, the real labels come first in one of six cases.
    exceeds = float((matches.f1[:, 0].nan_to_num() > matches.null_f1).float().mean())
    assert 0.08 < exceeds < 0.27


def test_rare_latents_are_not_matched(contexts):
    dense = random_codes(contexts, width=2)
    dense[:, 1] = 0
    dense[: MIN_ACTIVE - 1, 1] = 1
    matches = match_concepts(
        Codes.from_dense(dense),
        contexts,
        labels_of(contexts, random_labels(contexts)),
        generator(0),
    )
    assert matches is not None
    assert matches.indices[1].tolist() == [-1] * N_RANKS
    for name in ("f1", "low", "high", "precision", "recall", "thresholds", "null_f1"):
        assert getattr(matches, name)[1].isnan().all(), name


def test_negative_values_predict_nothing(contexts):
    held = random_labels(contexts)
    dense = random_codes(contexts)
    both = torch.where(dense == 0, -random_codes(contexts, seed=9), dense)
    labels = labels_of(contexts, held)
    one = match_concepts(Codes.from_dense(dense), contexts, labels, generator(0))
    other = match_concepts(Codes.from_dense(both), contexts, labels, generator(0))
    assert torch.equal(one.f1.nan_to_num(-1), other.f1.nan_to_num(-1))


def test_permuting_latents_permutes_the_matches(contexts):
    dense = random_codes(contexts)
    labels = labels_of(contexts, random_labels(contexts))
    order = torch.randperm(dense.shape[1], generator=generator(2))
    one = match_concepts(Codes.from_dense(dense), contexts, labels, generator(0))
    other = match_concepts(Codes.from_dense(dense[:, order]), contexts, labels, generator(0))
    for field in fields(one):
        value = getattr(one, field.name)
        if isinstance(value, torch.Tensor):
            expected, got = value[order], getattr(other, field.name)
            torch.testing.assert_close(got, expected, equal_nan=True)


def test_shifting_rotates_labels_within_documents(contexts):
    held = random_labels(contexts)
    codes = Codes.from_dense(random_codes(contexts))
    half, _ = halves(codes, contexts, labels_of(contexts, held), generator(0))
    shifted = half.shifted(generator(1))
    for document in range(half.n_documents):
        rows = np.flatnonzero(half.document == document)
        rolls = [np.roll(half.held[rows], s, axis=0) for s in range(len(rows))]
        equal = [s for s, r in enumerate(rolls) if np.array_equal(r, shifted.held[rows])]
        assert any(len(rows) / 4 - 1 <= s <= 3 * len(rows) / 4 + 1 for s in equal)


def test_no_labels_give_no_matches(contexts):
    codes = Codes.from_dense(random_codes(contexts))
    assert match_concepts(codes, contexts, None, generator(0)) is None


def test_one_document_cannot_be_halved():
    contexts = contexts_of([300])
    labels = labels_of(contexts, random_labels(contexts))
    codes = Codes.from_dense(random_codes(contexts))
    assert match_concepts(codes, contexts, labels, generator(0)) is None


def test_codes_of_other_contexts_are_refused(contexts):
    codes = Codes.from_dense(random_codes(contexts)[:-1])
    labels = labels_of(contexts, random_labels(contexts))
    with pytest.raises(ShapeError, match="one row for each measured token; got 719 rows for 720"):
        match_concepts(codes, contexts, labels, generator(0))
