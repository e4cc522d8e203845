"""Random texts and a model that learns, at a known step, to carry the token before."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modelassay.activations.corpus import Corpus, Document, TokenizedCorpus
from modelassay.core.randomness import generator
from modelassay.observe.probes.checkpoints import Checkpoint, probe_history
from modelassay.observe.probes.sweep_items import TokenConcept
from modelassay.observe.probes.training_history import TrainingHistory
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

WORDS, WIDTH, SITE = 24, 32, "stream:out"


def random_contexts(*, n: int = 40, length: int = 30, documents: int = 40) -> TokenizedCorpus:
    tokens = torch.randint(WORDS, (n, length), generator=generator(5))
    names = [Document(name=f"d{i}", text="x", split="fit") for i in range(documents)]
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    return TokenizedCorpus(
        corpus=Corpus(source="random", documents=tuple(names)),
        tokens=tokens, mask=everywhere, measured=everywhere, document=torch.arange(n) % documents,
        spans=torch.full((n, length, 2), -1),
    )  # fmt: skip


class Shifting(nn.Module):
    """The stream is this token's vector plus `share` of the other half's vector for the last."""

    def __init__(self, share: float) -> None:
        super().__init__()
        g = generator(7)
        here = torch.cat([torch.randn(WORDS, WIDTH // 2, generator=g)] * 2, 1)
        here[:, WIDTH // 2 :] = 0
        self.here = nn.Embedding.from_pretrained(here)
        self.last = nn.Embedding.from_pretrained(share * here.roll(WIDTH // 2, 1))
        self.stream = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.stream(self.here(tokens) + self.last(tokens.roll(1, 1)))


def shifting(share: float) -> Callable[[], Subject]:
    return lambda: load_subject(Shifting(share))


def checkpoints(shares: dict[int, float]) -> list[Checkpoint]:
    return [
        Checkpoint(step=step, name=f"run/step-{step}", load=shifting(share))
        for step, share in shares.items()
    ]


def concepts(contexts: TokenizedCorpus) -> list[TokenConcept]:
    tokens = contexts.tokens
    before = tokens.roll(1, 1).float()
    before[:, 0] = torch.nan
    coin = torch.randint(2, tokens.shape, generator=generator(9)).float()
    odd = torch.where(before.isnan(), torch.nan, before % 2)
    return [
        TokenConcept(name="odd before", description="The token before is odd.", values=odd),
        TokenConcept(name="odd", description="The token is odd.", values=(tokens % 2).float()),
        TokenConcept(name="coin", description="Heads.", values=coin),
        TokenConcept(
            name="size before", description="Number of the token before.", values=before,
            graded=True,
        ),
    ]  # fmt: skip


def history(shares: dict[int, float]) -> TrainingHistory:
    contexts = random_contexts()
    return probe_history(
        checkpoints(shares), contexts, concepts(contexts), [SITE], n_items=600, n_resamples=100
    )
