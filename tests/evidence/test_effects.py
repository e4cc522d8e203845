import pytest
import torch

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.evidence import windows
from modelassay.evidence.effects import edit_effects, next_block
from modelassay.evidence.suffix import takes_keys_and_values
from modelassay.evidence.windows import Targets
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from tests.evidence.planted import SITE

HORIZON = 3


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("site", [SITE, Site("resid_pre", 1), Site("resid_mid", 0)])
def test_effects_match_a_slow_loop(
    subject: Subject,
    contexts: TokenizedCorpus,
    site: Site,
    kept: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    assert takes_keys_and_values(subject)
    monkeypatch.setattr(windows, "takes_keys_and_values", lambda _subject: kept)
    rng = generator(0)
    n = 25
    context = torch.randint(10, (n,), generator=rng)
    lengths = contexts.mask.sum(1)[context]
    position = (torch.rand(n, generator=rng) * lengths).long()  # also the last: a cut horizon
    edits = torch.randn(2, n, 12, generator=rng)
    targets = Targets(contexts=contexts, context=context, position=position, horizon=HORIZON)
    found = edit_effects(subject, site, targets, edits, SILENT)
    beyond = next_block(subject, site)
    assert beyond is not None
    for sample in range(n):
        line = contexts.tokens[context[sample], : lengths[sample]][None]
        at = int(position[sample])
        clean = subject.run(line, read=[beyond])
        for edit in range(2):

            def add(x: torch.Tensor, at: int = at, by: torch.Tensor = edits[edit, sample]):
                x[0, at] += by
                return x

            edited = subject.run(line, read=[beyond], edit={site: add})
            p = clean.logits[0].double().log_softmax(-1)
            q = edited.logits[0].double().log_softmax(-1)
            kl = (p.exp() * (p - q)).sum(-1)[at : at + HORIZON + 1].sum()
            assert found.kl[sample, edit] == pytest.approx(float(kl), rel=1e-3)
            moved = (edited.activations[beyond] - clean.activations[beyond])[0]
            moved[at] -= edits[edit, sample]
            change = moved[at : at + HORIZON + 1].norm() / edits[edit, sample].norm()
            assert found.change[sample, edit] == pytest.approx(float(change), rel=1e-3)


def test_the_next_block_is_the_first_with_a_reader_in_it(subject: Subject):
    assert next_block(subject, Site("resid_post", 0)) == Site("resid_post", 1)
    assert next_block(subject, Site("resid_pre", 1)) == Site("resid_post", 1)
    assert next_block(subject, Site("mlp_out", 0)) == Site("resid_post", 1)
    assert next_block(subject, Site("resid_post", 1)) is None
    assert next_block(subject, Site("mlp_hidden", 0)) is None
