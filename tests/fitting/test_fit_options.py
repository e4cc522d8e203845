"""`fit` under every option, on activations whose features are known."""

import signal
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.errors import ProvenanceError, ValueRangeError
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import (
    BatchTopK,
    GroupMax,
    JumpReLU,
    Matryoshka,
    ReLUL1,
    TopK,
)
from modelassay.decompositions.sparsifiers import BatchTopKActivation
from modelassay.fitting.finishing import (
    SparsityGap,
    calibrate_on,
    sparsity_gap,
    warn_of_gap,
)
from modelassay.fitting.fit import fit
from modelassay.fitting.learners import learners_of
from modelassay.fitting.options import OptimizerName, TrainingOptions
from modelassay.fitting.plan import Plan
from modelassay.subjects.load import load_subject

TOP_K = TopK(width=64, k=3)
BATCH_TOP_K = BatchTopK(width=64, k=3)
JUMP = JumpReLU(width=64, target_l0=3.0)
SHORT = {"tokens": 40 * 128, "batch_tokens": 128, "progress": SILENT}
LONGER = {"tokens": 80 * 256, "batch_tokens": 256, "progress": SILENT}
NAMES: tuple[OptimizerName, ...] = get_args(OptimizerName)


def assert_same(one: Dictionary, other: Dictionary) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def explained_variance(dictionary: Dictionary, x: Tensor) -> float:
    left = (x - dictionary(x)).square().sum()
    return float(1 - (left / (x - x.mean(0)).square().sum()).detach())


class Interrupted:
    """Sends Ctrl-C to this very process after some reports."""

    def __init__(self, steps: int) -> None:
        self.left = steps + 1

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator["Interrupted"]:
        yield self

    def advance(self, amount: int, **numbers: float) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)

    def now(self, what: str) -> None:
        del what


@pytest.mark.parametrize(
    "options",
    [
        TrainingOptions(optimizer="signum", initial_k=20, k_share=0.8),
        TrainingOptions(optimizer="muon", normalisation="whitening", schedule="cosine"),
        TrainingOptions(precision="bfloat16", initial_k=8),
    ],
    ids=lambda options: f"{options.optimizer} {options.normalisation} {options.precision}",
)
def test_interrupted_and_resumed_run_is_bit_identical_under_any_options(
    planted: Harvest, tmp_path: Path, options: TrainingOptions
):
    recipes = [TOP_K, BATCH_TOP_K]
    whole = fit(recipes, planted, options=options, **SHORT)
    kept = {"checkpoint": tmp_path / "run", "options": options}
    with pytest.raises(KeyboardInterrupt):
        fit(recipes, planted, **kept, **(SHORT | {"progress": Interrupted(17)}))
    resumed = fit(recipes, planted, resume=True, **kept, **SHORT)
    for one, other in zip(whole, resumed, strict=True):
        assert_same(one, other)


def test_checkpoint_of_other_options_is_refused(planted: Harvest, tmp_path: Path):
    fit(TOP_K, planted, checkpoint=tmp_path, learning_rate=1e-3, **SHORT)
    with pytest.raises(ProvenanceError, match=r"options\.optimizer was 'adam'"):
        fit(
            TOP_K,
            planted,
            checkpoint=tmp_path,
            resume=True,
            learning_rate=1e-3,
            options=TrainingOptions(optimizer="signum"),
            **SHORT,
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_optimiser_learns_at_its_default_rate(planted: Harvest, name: OptimizerName):
    heldout = planted.select("heldout").activations()
    long_enough = LONGER | {"tokens": 200 * 256}
    fitted = fit(TOP_K, planted, options=TrainingOptions(optimizer=name), **long_enough)
    start = TOP_K.build(32, 32, heldout.mean(0), torch.Generator().manual_seed(0), None)
    assert explained_variance(fitted, heldout) > 0.75 > 0.5 > explained_variance(start, heldout)
    assert torch.allclose(fitted.directions.norm(dim=1), torch.ones(64), atol=1e-5)


@pytest.mark.parametrize("recipe", [TOP_K, BATCH_TOP_K, JUMP], ids=str)
def test_whitened_fit_explains_plain_activations(planted: Harvest, recipe: Recipe):
    heldout = planted.select("heldout").activations()
    fitted = fit(recipe, planted, options=TrainingOptions(normalisation="whitening"), **LONGER)
    assert explained_variance(fitted, heldout) > 0.7
    norms = fitted.directions.norm(dim=1)
    if recipe is JUMP:
        assert torch.allclose(norms, torch.ones(64), atol=1e-5)
    else:
        assert float((norms - 1).abs().max()) > 0.01
    assert fitted.provenance is not None
    assert fitted.provenance.facts["normalisation"] == "whitening"


def test_k_falls_from_the_initial_one_and_then_stays(planted: Harvest):
    plan = Plan.of(
        [TOP_K],
        site=planted.sites[0],
        tokens=100 * 128,
        batch_tokens=128,
        learning_rate=1e-3,
        seed=0,
        options=TrainingOptions(initial_k=30, k_share=0.1),
    )
    (learner,) = learners_of(plan, planted.moments(), 1.0, torch.device("cpu"))
    x = planted.activations()[:128]
    slots = [learner.encode(x, step).values.shape[1] for step in (0, 5, 10, 99)]
    assert slots == [30, 17, 3, 3]
    assert learner.dictionary.activation.settings()["k"] == 3


def test_fit_with_a_falling_k_ends_at_its_own_k(planted: Harvest):
    heldout = planted.select("heldout").activations()
    options = TrainingOptions(initial_k=20, k_share=0.5)
    for dictionary in fit([TOP_K, BATCH_TOP_K], planted, options=options, **SHORT):
        assert float(dictionary.encode(heldout).l0().mean()) <= 3.06


def test_k_cannot_fall_where_there_is_none_or_from_beyond_the_width(planted: Harvest):
    for recipe in (JUMP, GroupMax(width=64, k=4)):
        with pytest.raises(ValueRangeError, match="whose k cannot vary; got 10"):
            fit(recipe, planted, options=TrainingOptions(initial_k=10), **SHORT)
    with pytest.raises(ValueRangeError, match="at most the width, 64; got 65"):
        fit(TOP_K, planted, options=TrainingOptions(initial_k=65), **SHORT)


def test_product_in_bfloat16_learns_as_well(planted: Harvest):
    heldout = planted.select("heldout").activations()
    coarse, exact = (
        explained_variance(
            fit(TOP_K, planted, options=TrainingOptions(precision=precision), **LONGER), heldout
        )
        for precision in ("bfloat16", "float32")
    )
    assert abs(coarse - exact) < 0.02


def test_training_and_inference_are_equally_sparse(planted: Harvest):
    recipes = [TOP_K, BATCH_TOP_K, Matryoshka(width=64, k=3), JUMP, ReLUL1(width=64)]
    for dictionary in fit(recipes, planted, **LONGER):
        assert dictionary.provenance is not None
        facts = dictionary.provenance.facts
        gap = facts["l0_gap"]
        assert isinstance(gap, float)
        assert abs(gap) < 0.02
        if not isinstance(dictionary.activation, BatchTopKActivation):
            assert gap == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("recipe", [BATCH_TOP_K, Matryoshka(width=64, k=3)], ids=str)
def test_threshold_from_some_heldout_tokens_serves_others(planted: Harvest, recipe: Recipe):
    dictionary = fit(recipe, planted, **LONGER)
    rows = planted.select("heldout").activations()
    once, again = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    calibrate_on(dictionary, once)
    # Two halves of some 3,000 tokens: their own L0s differ by about 1.5 %.
    assert abs(sparsity_gap(dictionary, again, 256).relative) < 0.04


def test_wrong_threshold_is_seen_and_warned_of(planted: Harvest):
    dictionary = fit(BATCH_TOP_K, planted, **SHORT)
    rows = planted.select("heldout").activations()
    assert isinstance(dictionary.activation, BatchTopKActivation)
    before = sparsity_gap(dictionary, rows, 128)
    assert abs(before.relative) < 0.02
    dictionary.activation.calibrate(1.1 * float(dictionary.activation.threshold))
    gap = sparsity_gap(dictionary, rows, 128)
    assert gap.training == pytest.approx(3, rel=1e-3)
    assert gap.inference == pytest.approx(float(dictionary.encode(rows).l0().mean()), rel=1e-4)
    assert gap.relative < -0.02
    with pytest.warns(UserWarning, match=r"BatchTopK 64 .* Hold out more tokens"):
        warn_of_gap(dictionary.name, gap)
    with warnings.catch_warnings(record=True) as raised:
        warn_of_gap(dictionary.name, before)
    assert raised == []


def test_gap_of_nothing_active_is_0_and_of_something_from_nothing_infinite():
    assert SparsityGap(training=0.0, inference=0.0).relative == 0
    assert SparsityGap(training=0.0, inference=1.0).relative == float("inf")
    assert SparsityGap(training=4.0, inference=5.0).relative == pytest.approx(0.25)


def test_provenance_names_every_option(planted: Harvest):
    options = replace(TrainingOptions(), optimizer="muon", precision="auto")
    dictionary = fit(TOP_K, planted, options=options, **SHORT)
    assert dictionary.provenance is not None
    facts = dictionary.provenance.facts
    assert options.facts().keys() <= facts.keys()
    assert (facts["optimizer"], facts["precision"]) == ("muon", "float32")


@pytest.mark.slow
def test_training_and_inference_are_equally_sparse_on_a_language_model():
    subject = load_subject("bundled")
    activations = harvest(subject, stdlib_corpus(), "resid_post.2", tokens=40_000, progress=SILENT)
    recipes = [BatchTopK(width=256, k=16), Matryoshka(width=256, k=16), TopK(width=256, k=16)]
    fitted = fit(recipes, activations, tokens=60 * 512, batch_tokens=512, progress=SILENT)
    rows = activations.select("heldout").activations().float()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    once, again = rows[order[::2]], rows[order[1::2]]
    for dictionary in fitted:
        assert dictionary.provenance is not None
        assert abs(float(dictionary.provenance.facts["l0_gap"] or 0)) < 0.02
        # Nor does it matter that the threshold comes from the tokens that it is judged on.
        calibrate_on(dictionary, once)
        gap = sparsity_gap(dictionary, again, 512)
        assert gap.training == pytest.approx(16, rel=1e-3)
        assert abs(gap.relative) < 0.02
