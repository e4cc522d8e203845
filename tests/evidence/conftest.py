"""Subjects and harvests that several tests of evidence share."""

from collections.abc import Callable

import pytest

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.harvest import Harvest, harvest
from modelassay.core.progress import SILENT
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject
from tests.evidence.planted import IGNORED, LOUD, SITE, random_contexts, tiny_llama


@pytest.fixture(scope="session")
def subject() -> Subject:
    return load_subject(tiny_llama(norms=True))


@pytest.fixture(scope="session")
def planted_subject() -> Subject:
    """After the first block, neuron IGNORED is read by nothing and LOUD ten times as much."""
    model = tiny_llama(norms=False)
    second = model.model.layers[1]
    readers = [
        second.self_attn.q_proj, second.self_attn.k_proj, second.self_attn.v_proj,
        second.mlp.gate_proj, second.mlp.up_proj, model.lm_head,
    ]  # fmt: skip
    for reader in readers:
        reader.weight[:, IGNORED] = 0
    model.lm_head.weight[:, LOUD] *= 10
    return load_subject(model)


@pytest.fixture(scope="session")
def contexts() -> TokenizedCorpus:
    return random_contexts(n_documents=24, contexts_each=2, n_tokens=20, vocab=23)


@pytest.fixture(scope="session")
def harvested(contexts: TokenizedCorpus) -> Callable[[Subject], Harvest]:
    """A subject's harvest of `contexts` after its first block."""
    return lambda subject: harvest(subject, contexts, SITE, progress=SILENT)
