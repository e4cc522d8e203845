"""One small pair of planted models, and what it does on held-out text."""

import os
from pathlib import Path

import pytest

from modelassay.activations.corpus import TokenizedCorpus, corpus_from_texts, tokenize
from modelassay.activations.harvest import Harvest, harvest
from modelassay.core.progress import SILENT
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject
from modelassay.testbeds.planted.arms import PlantedPair, planted_arms

COUNTS = {"common": 4, "combination": 4, "rare": 2}
SEED = 5


@pytest.fixture(scope="package")
def subject() -> Subject:
    return load_subject("bundled")


@pytest.fixture(scope="package")
def contexts(subject: Subject) -> TokenizedCorpus:
    files = sorted(Path(os.__file__).parent.glob("*.py"))[:40]
    texts = [path.read_text("utf-8", errors="replace")[:1000] for path in files]
    corpus = corpus_from_texts(texts, source="heads of files", heldout_share=0.2)
    assert subject.tokenizer is not None
    return tokenize(corpus, subject.tokenizer, context_tokens=64)


@pytest.fixture(scope="package")
def pair(subject: Subject, contexts: TokenizedCorpus) -> PlantedPair:
    return planted_arms(subject, contexts, seed=SEED, counts=COUNTS, progress=SILENT)


@pytest.fixture(scope="package")
def fit_text(pair: PlantedPair, contexts: TokenizedCorpus) -> Harvest:
    """The first arm on the very text that the features were calibrated on."""
    return harvest(pair.subjects[0], contexts.select("fit"), pair.site, progress=SILENT)
