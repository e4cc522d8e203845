"""Activations whose features are known, as a harvest."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from modelassay.activations.harvest import Harvest
from modelassay.activations.matrix import RowMatrix
from modelassay.subjects.site import Site

CONTEXT_TOKENS = 50
SITE = Site.parse("resid_post.1")

MakeHarvest = Callable[[Tensor], Harvest]


def harvest_of(rows: Tensor) -> Harvest:
    """A harvest of given rows: documents of 50 tokens, of which every fifth is held out."""
    n = len(rows) // CONTEXT_TOKENS
    documents = tuple(
        Document(name=str(i), text="x", split="heldout" if i % 5 == 4 else "fit") for i in range(n)
    )
    ones = torch.ones(n, CONTEXT_TOKENS, dtype=torch.bool)
    contexts = TokenizedCorpus(
        corpus=Corpus(source="planted", documents=documents),
        tokens=ones.long(),
        mask=ones,
        measured=ones,
        document=torch.arange(n),
        spans=torch.zeros(n, CONTEXT_TOKENS, 2, dtype=torch.int64),
    )
    return Harvest(
        contexts=contexts,
        sites=(SITE,),
        subject_name="planted",
        subject_fingerprint="0" * 16,
        matrices={SITE: RowMatrix(parts=(rows[: n * CONTEXT_TOKENS],), mapped=False)},
    )


@pytest.fixture(scope="session")
def make_harvest() -> MakeHarvest:
    """`harvest_of`, for tests, which cannot import this file."""
    return harvest_of


@pytest.fixture(scope="session")
def planted_features() -> Tensor:
    """64 unit directions in 32 dimensions."""
    features = torch.randn(64, 32, generator=torch.Generator().manual_seed(5))
    return features / features.norm(dim=1, keepdim=True)


@pytest.fixture(scope="session")
def planted_rows(planted_features: Tensor) -> Tensor:
    """30,000 activations, each the sum of 3 of the features and a constant."""
    generator = torch.Generator().manual_seed(6)
    active = torch.rand(30_000, 64, generator=generator).topk(3).indices
    codes = torch.zeros(30_000, 64).scatter(
        1, active, 0.5 + torch.rand(30_000, 3, generator=generator)
    )
    return codes @ planted_features + 0.3


@pytest.fixture(scope="session")
def planted(planted_rows: Tensor) -> Harvest:
    """The planted activations as a harvest: 24,000 tokens to fit, 6,000 held out."""
    return harvest_of(planted_rows)
