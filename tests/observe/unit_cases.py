"""Made-up harvests and units for the tests of examples and contrasts."""

import torch

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from modelassay.activations.harvest import Harvest
from modelassay.activations.matrix import RowMatrix
from modelassay.core.randomness import generator
from modelassay.observe.exemplars.units import directions
from modelassay.subjects.site import Site

SITE = Site("resid_post", 0)
WIDTH = 6


def made_harvest(seed=0, documents=40, length=12):
    """Random activations; tokens 0 … 8, so that each recurs in many contexts."""
    g = generator(seed)
    tokens = torch.randint(0, 9, (documents, length), generator=g)
    measured = torch.ones_like(tokens, dtype=torch.bool)
    measured[:, 0] = False
    measured[::3, -4:] = False
    names = tuple(Document(name=f"d{i}", text="x", split="fit") for i in range(documents))
    contexts = TokenizedCorpus(
        corpus=Corpus(source="test", documents=names), tokens=tokens,
        mask=measured | (torch.arange(length) == 0), measured=measured,
        document=torch.arange(documents), spans=torch.zeros(documents, length, 2).long(),
    )  # fmt: skip
    rows = torch.randn(contexts.n_tokens, WIDTH, generator=g)
    return Harvest(
        contexts=contexts, sites=(SITE,), subject_name="made up", subject_fingerprint="0",
        matrices={SITE: RowMatrix(parts=(rows[:100], rows[100:]), mapped=False)},
    )  # fmt: skip


def sparse_units():
    """Three directions, active on about a quarter of the tokens."""
    vectors = torch.eye(WIDTH)[:3]
    return directions(vectors, offsets=torch.full((3,), 0.7))
