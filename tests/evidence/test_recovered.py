from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.harvest import Harvest
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition, Parts
from modelassay.decompositions.linear import Neurons, RandomDictionary
from modelassay.evidence.recovered import loss_recovered
from modelassay.subjects.subject import Subject
from tests.evidence.planted import SITE


class Constant(Decomposition):
    """Reconstructs every activation by one vector."""

    name = "constant"
    references = ()
    reads = writes = SITE

    def __init__(self, vector: Tensor) -> None:
        self.vector = vector

    width = property(lambda _self: 1)
    d_in = property(lambda self: len(self.vector))
    directions = property(lambda self: torch.zeros(1, len(self.vector)))
    bias = property(lambda self: self.vector)

    def encode_rows(self, x: Float[Tensor, "token d_in"]) -> Codes:
        return Codes.from_dense(torch.zeros(len(x), 1))

    def parts(self) -> Parts:
        return Parts(kind="constant", tensors={})


@pytest.fixture(scope="module")
def reference(subject: Subject, harvested: Callable[[Subject], Harvest]) -> Tensor:
    return harvested(subject).activations()


def measure(
    subject: Subject, decomposition: Decomposition, contexts: TokenizedCorpus, reference: Tensor
) -> dict[str, float]:
    evidence = loss_recovered(
        subject, decomposition, contexts, reference=reference, generator=generator(0),
        progress=SILENT,
    )  # fmt: skip
    assert all(each.name == name for name, each in evidence.items())
    return {name: float(each.value[0]) for name, each in evidence.items()}


def test_the_identity_recovers_everything(
    subject: Subject, contexts: TokenizedCorpus, reference: Tensor
):
    values = measure(subject, Neurons(12, SITE), contexts, reference)
    for ablation in ("zero", "mean", "resample"):
        # An untrained model's cross-entropy may fall under ablation; its KL cannot.
        assert values[f"kl_recovered_{ablation}"] == pytest.approx(1, abs=1e-5)
        span = values[f"ce_{ablation}"] - values["ce_clean"]
        if span > 0:
            assert values[f"ce_recovered_{ablation}"] == pytest.approx(1, abs=1e-4)
    assert values["ce_spliced"] == pytest.approx(values["ce_clean"], abs=1e-5)


def test_the_mean_recovers_nothing(subject: Subject, contexts: TokenizedCorpus, reference: Tensor):
    evidence = loss_recovered(
        subject, Constant(reference.mean(0)), contexts, reference=reference,
        generator=generator(0), progress=SILENT,
    )  # fmt: skip
    assert evidence["kl_recovered_mean"].value[0] == pytest.approx(0, abs=1e-6)
    assert evidence["kl_spliced"].value[0] == pytest.approx(float(evidence["kl_mean"].value[0]))
    # The null of every scale is the mean ablation, so that here value and null agree.
    for ablation in ("zero", "mean", "resample"):
        each = evidence[f"kl_recovered_{ablation}"]
        assert each.value[0] == pytest.approx(float(each.null[0]), abs=1e-6)
        assert each.low[0] <= each.value[0] <= each.high[0]


def test_losses_match_a_slow_loop(subject: Subject, contexts: TokenizedCorpus, reference: Tensor):
    decomposition = RandomDictionary(
        30, 12, 3, generator=generator(1), mean=reference.mean(0), site=SITE
    )
    contexts = contexts[:10]
    values = measure(subject, decomposition, contexts, reference)
    ce, kl, zero = [], [], []
    for tokens, mask, measured in zip(
        contexts.tokens, contexts.mask, contexts.measured, strict=True
    ):
        n = int(mask.sum())  # alone and unpadded: padding must be inert
        line = tokens[None, :n]

        def splice(x: Tensor, measured: Tensor = measured[:n]) -> Tensor:
            x[0, measured] = decomposition(x[0, measured]).detach()
            return x

        def blank(x: Tensor, measured: Tensor = measured[:n]) -> Tensor:
            x[0, measured] = 0
            return x

        clean = subject.run(line).logits[0].double().log_softmax(-1)
        spliced = subject.run(line, edit={SITE: splice}).logits[0].double().log_softmax(-1)
        zeroed = subject.run(line, edit={SITE: blank}).logits[0].double().log_softmax(-1)
        for t in range(1, n):
            kl.append(float((clean[t].exp() * (clean[t] - spliced[t])).sum()))
            if t + 1 < n:
                ce.append(float(-spliced[t, line[0, t + 1]]))
                zero.append(float(-zeroed[t, line[0, t + 1]]))
    assert values["ce_spliced"] == pytest.approx(sum(ce) / len(ce), rel=1e-5)
    assert values["ce_zero"] == pytest.approx(sum(zero) / len(zero), rel=1e-5)
    assert values["kl_spliced"] == pytest.approx(sum(kl) / len(kl), rel=1e-4)


def test_a_harmless_ablation_leaves_nothing_to_recover(contexts: TokenizedCorpus, subject: Subject):
    # Every token's activation is the reference: mean and resample ablation change nothing at all.
    tokens = torch.ones_like(contexts.tokens)
    same = replace(contexts, tokens=tokens, mask=torch.ones_like(contexts.mask))
    x = subject.run(tokens[:1], read=[SITE]).activations[SITE][0, :1]
    measured = torch.zeros_like(contexts.measured)
    measured[:, 0] = True
    values = measure(subject, Neurons(12, SITE), replace(same, measured=measured), x)
    assert values["ce_recovered_mean"] != values["ce_recovered_mean"]


def test_without_next_tokens_only_the_kl_is_measured(
    subject: Subject, contexts: TokenizedCorpus, reference: Tensor
):
    third = torch.arange(contexts.tokens.shape[1]) == 2
    measured = third.expand_as(contexts.mask)
    alone = replace(contexts, measured=measured, mask=measured | (third.cumsum(0) == 0))
    values = measure(subject, Neurons(12, SITE), alone, reference)
    assert values["kl_recovered_mean"] == pytest.approx(1, abs=1e-5)
    assert not any(name.startswith("ce") for name in values)


def test_messages(subject: Subject, contexts: TokenizedCorpus, reference: Tensor):
    with pytest.raises(ValueRangeError, match="must read and write one site; got reads=None"):
        measure(subject, Neurons(12), contexts, reference)
