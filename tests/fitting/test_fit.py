"""`fit` end to end, on activations whose features are known."""

import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from modelassay.activations.harvest import Harvest
from modelassay.core.errors import OutputExistsError, ProvenanceError, TooFewTokensError
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import BatchTopK, ReLUL1, TopK
from modelassay.fitting.fit import fit

MakeHarvest = Callable[[Tensor], Harvest]

TOP_K = TopK(width=128, k=3)
BATCH_TOP_K = BatchTopK(width=128, k=3)
RELU = ReLUL1(width=64, l1_coefficient=1.0)
SHORT = {"tokens": 45 * 128, "batch_tokens": 128, "learning_rate": 1e-2, "progress": SILENT}


def weights_of(dictionary: Dictionary) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in dictionary.state_dict().items()}


def assert_same(one: Dictionary, other: Dictionary) -> None:
    for name, tensor in weights_of(one).items():
        assert torch.equal(tensor, weights_of(other)[name]), name


def explained_variance(dictionary: Dictionary, x: Tensor) -> float:
    left = (x - dictionary(x)).square().sum()
    return float(1 - (left / (x - x.mean(0)).square().sum()).detach())


def recovery(dictionary: Dictionary, features: Tensor) -> float:
    """Mean cosine of features and latents under the best one-to-one assignment."""
    cosines = (dictionary.directions @ features.T).numpy()
    return float(cosines[linear_sum_assignment(-cosines)].mean())


@pytest.fixture(scope="module")
def trained(planted: Harvest) -> list[Dictionary]:
    """Three kinds of dictionary from one pass."""
    return fit(
        [TOP_K, BATCH_TOP_K, RELU],
        planted,
        tokens=250 * 512,
        batch_tokens=512,
        learning_rate=1e-2,
        progress=SILENT,
    )


def test_planted_features_are_recovered(trained: list[Dictionary], planted_features: Tensor):
    topk, batch_topk, relu = (recovery(d, planted_features) for d in trained)
    random = recovery(
        TOP_K.build(32, 32, torch.zeros(32), torch.Generator().manual_seed(0), None),
        planted_features,
    )
    assert topk > 0.97
    assert batch_topk > 0.97
    assert relu > 0.9
    assert random < 0.6  # the null: the same search among untrained directions


def test_trained_dictionaries_work_in_the_models_own_units(
    trained: list[Dictionary], planted: Harvest
):
    heldout = planted.select("heldout").activations()
    for dictionary in trained:
        assert explained_variance(dictionary, heldout) > 0.8
        norms = dictionary.directions.norm(dim=1)
        assert torch.allclose(norms, torch.ones(dictionary.width), atol=1e-5)


def test_l0_on_heldout_documents_is_k(trained: list[Dictionary], planted: Harvest):
    heldout = planted.select("heldout").activations()
    topk, batch_topk, _ = trained
    assert float(topk.encode(heldout).l0().mean()) <= 3
    assert float(batch_topk.encode(heldout).l0().mean()) == pytest.approx(3, rel=0.02)


def test_provenance_says_what_it_was_trained_on(trained: list[Dictionary]):
    for dictionary in trained:
        assert dictionary.subject_fingerprint == "0" * 16
        assert dictionary.provenance is not None
        assert dictionary.provenance.facts["tokens"] == 250 * 512
        assert dictionary.provenance.facts["site"] == str(dictionary.reads)


@pytest.mark.parametrize("recipe", [TOP_K, BATCH_TOP_K, RELU], ids=str)
def test_unit_of_the_activations_does_not_matter(
    recipe: Recipe, planted_rows: Tensor, make_harvest: MakeHarvest
):
    # Powers of two, so that both runs see the same bits once they are scaled.
    rows = planted_rows[:5000]
    small = fit(recipe, make_harvest(rows), **SHORT)
    large = fit(recipe, make_harvest(1024 * rows), **SHORT)
    assert torch.allclose(large.encode(1024 * rows).dense(), 1024 * small.encode(rows).dense())
    assert torch.allclose(large(1024 * rows), 1024 * small(rows), atol=1e-2)


def test_same_seed_gives_the_same_weights_and_another_does_not(planted: Harvest):
    first, again, other = (fit(TOP_K, planted, seed=seed, **SHORT) for seed in (1, 1, 2))
    assert_same(first, again)
    assert not torch.equal(first.W_dec, other.W_dec)


def test_dictionaries_on_one_pass_are_those_of_a_pass_each(planted: Harvest):
    recipes = [TOP_K, BATCH_TOP_K, TopK(width=64, k=2, frozen_decoder=True)]
    together = fit(recipes, planted, seed=[1, 1, 1], **SHORT)
    for recipe, dictionary in zip(recipes, together, strict=True):
        assert_same(fit(recipe, planted, seed=1, **SHORT), dictionary)


def test_seeds_make_twins_differ_on_the_same_pass(planted: Harvest):
    one, other = fit([TOP_K, TOP_K], planted, seed=[1, 2], **SHORT)
    assert not torch.equal(one.W_dec, other.W_dec)


def test_heldout_documents_are_never_trained_on(
    planted: Harvest, planted_rows: Tensor, make_harvest: MakeHarvest
):
    altered = planted_rows.clone()
    altered.view(-1, 5, 50, 32)[:, 4] = 77.0
    assert_same(fit(TOP_K, planted, **SHORT), fit(TOP_K, make_harvest(altered), **SHORT))


class InterruptedProgress:
    """Sends a signal to this very process after some steps, as Ctrl-C would."""

    def __init__(self, steps: int) -> None:
        self.left = steps + 1  # the first report is what a resumed run had done before

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator["InterruptedProgress"]:
        yield self

    def advance(self, amount: int, **numbers: float) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)

    def now(self, what: str) -> None:
        del what


@pytest.mark.parametrize("steps", [1, 37])
def test_interrupted_and_resumed_run_is_bit_identical(planted: Harvest, tmp_path: Path, steps: int):
    recipes = [TOP_K, BATCH_TOP_K, RELU, TopK(width=64, k=2, frozen_decoder=True)]
    whole = fit(recipes, planted, log=tmp_path / "whole.csv", **SHORT)
    kept = {"checkpoint": tmp_path / "run", "log": tmp_path / "resumed.csv"}
    with pytest.raises(KeyboardInterrupt):
        fit(recipes, planted, **kept, **(SHORT | {"progress": InterruptedProgress(steps)}))
    resumed = fit(recipes, planted, resume=True, **kept, **SHORT)
    for one, other in zip(whole, resumed, strict=True):
        assert_same(one, other)
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


_KILLED_RUN = """
import os, runpy, signal, sys
import torch
from modelassay.core.progress import SILENT
from modelassay.decompositions.recipes import BatchTopK, TopK
from modelassay.fitting import trainer
from modelassay.fitting.fit import fit

torch.set_num_threads(1)
trainer.SAVE_EVERY_SECONDS = 0.0  # a checkpoint at each look: at step 25
steps = 0
step = trainer.Trainer._step

def counted(self, task):
    global steps
    if steps == 43:
        os.kill(os.getpid(), signal.SIGKILL)
    steps += 1
    step(self, task)

trainer.Trainer._step = counted
harvest = runpy.run_path(sys.argv[1])["harvest_of"](torch.load(sys.argv[2]))
fit([TopK(width=128, k=3), BatchTopK(width=128, k=3)], harvest, checkpoint=sys.argv[3],
    tokens=45 * 128, batch_tokens=128, learning_rate=1e-2, progress=SILENT)
"""


def test_killed_and_resumed_run_is_bit_identical(
    planted: Harvest, planted_rows: Tensor, tmp_path: Path
):
    recipes = [TOP_K, BATCH_TOP_K]
    torch.save(planted_rows, tmp_path / "rows.pt")
    done = subprocess.run(
        [
            *(sys.executable, "-c", _KILLED_RUN),
            *(Path(__file__).parent / "conftest.py", tmp_path / "rows.pt", tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole = fit(recipes, planted, **SHORT)
    resumed = fit(recipes, planted, checkpoint=tmp_path / "run", resume=True, **SHORT)
    for one, other in zip(whole, resumed, strict=True):
        assert_same(one, other)


def test_resume_without_a_checkpoint_begins(planted: Harvest, tmp_path: Path):
    begun = fit(TOP_K, planted, checkpoint=tmp_path / "run", resume=True, **SHORT)
    assert_same(begun, fit(TOP_K, planted, **SHORT))


def test_checkpoint_of_another_run_is_refused(planted: Harvest, tmp_path: Path):
    checkpoint = tmp_path / "run"
    fit(TOP_K, planted, checkpoint=checkpoint, **SHORT)
    with pytest.raises(OutputExistsError, match=r"with a checkpoint.*resume=True"):
        fit(TOP_K, planted, checkpoint=checkpoint, **SHORT)
    with pytest.raises(ProvenanceError, match=r"seeds was \[0\] in .* now is \[3\]"):
        fit(TOP_K, planted, checkpoint=checkpoint, resume=True, seed=3, **SHORT)


def test_checkpoint_of_other_activations_is_refused(
    planted: Harvest, planted_rows: Tensor, make_harvest: MakeHarvest, tmp_path: Path
):
    fit(TOP_K, planted, checkpoint=tmp_path / "run", **SHORT)
    other = make_harvest(planted_rows.flip(1))
    with pytest.raises(ProvenanceError, match=r"activations\.resid_post\.1 was"):
        fit(TOP_K, other, checkpoint=tmp_path / "run", resume=True, **SHORT)


def test_too_few_tokens_are_refused_before_training(planted: Harvest):
    with pytest.raises(TooFewTokensError, match="one batch of 128 tokens; got tokens=100"):
        fit(TOP_K, planted, **(SHORT | {"tokens": 100}))
    with pytest.raises(TooFewTokensError):
        fit(TOP_K, planted, **(SHORT | {"batch_tokens": 30_000, "tokens": 60_000}))
