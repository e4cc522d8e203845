"""`fit_temporal` on contexts with a slow and a fast part that are known."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modelassay.activations.context_stream import ContextBatch, ContextStream
from modelassay.activations.harvest import Harvest
from modelassay.core.errors import (
    NonFiniteError,
    OutputExistsError,
    ProvenanceError,
    TooFewTokensError,
    ValueRangeError,
)
from modelassay.core.progress import SILENT
from modelassay.core.randomness import generator
from modelassay.decompositions.recipe_temporal import Temporal
from modelassay.decompositions.temporal import TemporalDictionary
from modelassay.fitting.logs import Measurement
from modelassay.fitting.temporal import fit_temporal
from modelassay.fitting.temporal_shares import temporal_shares

D, TOPICS, CONTEXTS, TOKENS = 32, 8, 300, 50  # of which each fifth context is held out
RECIPE = Temporal(width=64, k=2, heads=4, bottleneck=4)
SHORT = {"tokens": 30 * 8 * TOKENS, "batch_contexts": 8, "learning_rate": 1e-2, "progress": SILENT}

MakeHarvest = Callable[[Tensor], Harvest]
Planted = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def planted() -> Planted:
    """A slow wave along its context's own direction; two events of 24 at every token."""
    draw = generator(3)
    basis = torch.linalg.qr(torch.randn(D, D, generator=draw))[0]
    topic = torch.randint(TOPICS, (CONTEXTS,), generator=draw)
    phase = 6.28 * torch.rand(CONTEXTS, 1, generator=draw)
    level = 2 + torch.rand(CONTEXTS, 1, generator=draw)
    level = level + 0.5 * torch.sin(torch.arange(TOKENS) / 8 + phase)
    size = (CONTEXTS, TOKENS, D - TOPICS)
    events = torch.rand(size, generator=draw).topk(2).indices
    sizes = 0.5 + torch.rand(CONTEXTS, TOKENS, 2, generator=draw)
    slow = level.unsqueeze(2) * basis[topic].unsqueeze(1)
    return slow, torch.zeros(size).scatter(2, events, sizes) @ basis[TOPICS:]


@pytest.fixture(scope="module")
def harvest(planted: Planted, make_harvest: MakeHarvest) -> Harvest:
    return make_harvest(sum(planted, torch.zeros(())).flatten(0, 1))


@pytest.fixture(scope="module")
def fitted(harvest: Harvest) -> TemporalDictionary:
    tokens = 600 * 8 * TOKENS
    return fit_temporal(RECIPE, harvest, **SHORT | {"tokens": tokens})


def heldout() -> Tensor:
    return torch.arange(CONTEXTS) % 5 == 4


def determination(found: Tensor, truth: Tensor) -> float:
    """R² of centred rows."""
    found, truth = (rows.flatten(0, 1) for rows in (found, truth))
    left = (found - found.mean(0)) - (truth - truth.mean(0))
    return float(1 - left.square().sum() / (truth - truth.mean(0)).square().sum())


class Rows(list[Measurement]):
    """A log in memory."""

    def write(self, rows: list[Measurement]) -> None:
        self.extend(rows)

    def close(self) -> None:
        pass


def test_predicted_codes_carry_the_slow_part_and_novel_ones_the_events(
    fitted: TemporalDictionary, planted: Planted
):
    slow, fast = (part[heldout()] for part in planted)
    codes = fitted.encode_contexts(slow + fast)
    predicted, novel = fitted.decode_predicted(codes), fitted.decode_novel(codes)
    # Not the first tokens, whose topic nobody can know.
    slow, fast, predicted, novel = (x[:, 10:] for x in (slow, fast, predicted, novel))
    assert determination(predicted, slow) > 0.9
    assert determination(novel, fast) > 0.7
    # The null: the same parts the other way round.
    assert determination(predicted, fast) < 0
    assert determination(novel, slow) < 0.05


def test_a_prediction_needs_the_context(fitted: TemporalDictionary, planted: Planted):
    x = sum(planted, torch.zeros(()))[heldout()]
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    order = torch.randperm(mask.numel(), generator=generator(0))
    shuffled = x.flatten(0, 1)[order].view_as(x)
    whole = temporal_shares(fitted, [ContextBatch(activations=x, mask=mask)])
    null = temporal_shares(fitted, [ContextBatch(activations=shuffled, mask=mask)])
    assert whole.predicted > 0.6
    assert null.predicted < 0.2
    assert whole.both > null.both + 0.2


def test_shares_are_those_of_their_definition(fitted: TemporalDictionary, planted: Planted):
    x = sum(planted, torch.zeros(()))[heldout()]
    mask = torch.arange(TOKENS).expand(len(x), TOKENS) < 20
    halves = [ContextBatch(activations=x[i::2], mask=mask[i::2]) for i in (0, 1)]
    shares = temporal_shares(fitted, halves)
    codes = fitted.encode_contexts(x[:, :20])
    truth, predicted, novel = (
        rows.flatten(0, 1)
        for rows in (x[:, :20], fitted.decode_predicted(codes), fitted.decode_novel(codes))
    )
    variance = truth.var(0).sum()
    assert shares.predicted == pytest.approx(
        float(1 - (truth - predicted).var(0).sum() / variance), abs=1e-5
    )
    assert shares.novel == pytest.approx(
        float(1 - (truth - novel).var(0).sum() / variance), abs=1e-5
    )
    left = (truth - predicted - novel - fitted.bias).square().sum()
    spread = (truth - truth.mean(0)).square().sum()
    assert shares.both == pytest.approx(float(1 - left / spread), abs=1e-5)
    assert shares.tokens == 20 * len(x)
    assert shares.l0 <= 2
    with pytest.raises(TooFewTokensError, match="tokens to measure on"):
        temporal_shares(fitted, [])


def test_provenance_says_what_the_parts_explain(fitted: TemporalDictionary, harvest: Harvest):
    assert fitted.provenance is not None
    facts = fitted.provenance.facts
    stream = ContextStream(
        harvest.select("heldout"), batch_contexts=20, generator=generator(0), epochs=1
    )
    shares = temporal_shares(fitted, stream)
    assert facts["explained_variance"] == pytest.approx(shares.both, abs=1e-6)
    assert facts["explained_variance_predicted"] == pytest.approx(shares.predicted, abs=1e-6)
    assert facts["tokens"] == 600 * 8 * TOKENS
    assert fitted.subject_fingerprint == "0" * 16


def test_same_seed_gives_the_same_weights_and_another_does_not(harvest: Harvest):
    one, again, other = (fit_temporal(RECIPE, harvest, seed=seed, **SHORT) for seed in (1, 1, 2))
    assert_same(one, again)
    assert not torch.equal(one.W_dec, other.W_dec)


def test_the_unit_of_the_activations_does_not_matter(planted: Planted, make_harvest: MakeHarvest):
    # A power of two, so that both runs see the same bits once they are scaled.
    x = sum(planted, torch.zeros(()))[:50]
    small = fit_temporal(RECIPE, make_harvest(x.flatten(0, 1)), **SHORT)
    large = fit_temporal(RECIPE, make_harvest(1024 * x.flatten(0, 1)), **SHORT)
    assert torch.allclose(large(1024 * x), 1024 * small(x), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("recipe", [RECIPE, replace(RECIPE, tied=False, layers=2)], ids=str)
def test_every_parameter_is_trained(recipe: Temporal, harvest: Harvest):
    fitted = fit_temporal(recipe, harvest, **SHORT)
    assert fitted.provenance is not None
    start = recipe.build(
        harvest.select("fit").moments().mean, fitted.input_scale, generator(0), None
    )
    zero = {name for name, tensor in start.named_parameters() if not tensor.any()}
    for name, tensor in fitted.named_parameters():
        assert tensor.isfinite().all(), name
        # Keys' biases shift all scores of a query alike: the softmax does not see them.
        assert name not in zero or tensor.any() or name.endswith("k_ctx.bias"), name


def test_a_run_that_was_interrupted_ends_with_the_same_bits(harvest: Harvest, tmp_path: Path):
    through = Rows()
    whole = fit_temporal(RECIPE, harvest, log=[through], **SHORT)

    class Interrupting(Rows):
        def write(self, rows: list[Measurement]) -> None:
            super().write(rows)
            signal.raise_signal(signal.SIGINT)

    stopped = Interrupting()
    options = SHORT | {"checkpoint": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        fit_temporal(RECIPE, harvest, log=[stopped], **options)
    assert [row.step for row in stopped] == [25]
    rest = Rows()
    resumed = fit_temporal(RECIPE, harvest, log=[rest], resume=True, **options)
    assert_same(resumed, whole)
    assert [*stopped, *rest] == through
    again = fit_temporal(RECIPE, harvest, resume=True, **options)
    assert_same(again, whole)
    with pytest.raises(OutputExistsError, match="resume=True"):
        fit_temporal(RECIPE, harvest, **options)
    with pytest.raises(ProvenanceError, match=r"recipe\.k"):
        fit_temporal(replace(RECIPE, k=3), harvest, resume=True, **options)


def test_logs_go_to_files(harvest: Harvest, tmp_path: Path):
    fit_temporal(RECIPE, harvest, log=tmp_path / "logs", **SHORT)
    lines = (tmp_path / "logs" / "log.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[1] for line in lines] == ["step", "25", "30"]


def test_numbers_that_make_no_sense_are_refused(
    harvest: Harvest, planted: Planted, make_harvest: MakeHarvest
):
    with pytest.raises(ValueRangeError, match="learning_rate and tokens must be above 0"):
        fit_temporal(RECIPE, harvest, learning_rate=0.0, progress=SILENT)
    with pytest.raises(TooFewTokensError, match="contexts for one batch of 1000"):
        fit_temporal(RECIPE, harvest, batch_contexts=1000, progress=SILENT)
    x = sum(planted, torch.zeros(())).clone()
    x[0, 3, 1] = float("nan")
    with pytest.raises(NonFiniteError, match="must be finite"):
        fit_temporal(RECIPE, make_harvest(x.flatten(0, 1)), **SHORT)


def assert_same(one: TemporalDictionary, other: TemporalDictionary) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
