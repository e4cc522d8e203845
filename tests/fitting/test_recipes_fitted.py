"""Every recipe beyond TopK, BatchTopK and ReLU + L1 trained end to end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.decompositions.recipes import AbsTopK, GroupMax, JumpReLU, Matryoshka
from modelassay.decompositions.sparsifiers import BatchTopKActivation
from modelassay.decompositions.storage import load_decomposition
from modelassay.fitting.fit import fit
from modelassay.subjects.load import load_subject

MakeHarvest = Callable[[Tensor], Harvest]

RECIPES: list[Recipe] = [
    JumpReLU(width=128, target_l0=3.0),
    JumpReLU(width=128, penalty="step", coefficient=0.02),
    JumpReLU(width=128, penalty="tanh", coefficient=0.02),
    Matryoshka(width=128, k=3),
    Matryoshka(width=128, k=3, sparsifier="topk", prefixes=(8, 128)),
    AbsTopK(width=128, k=3),
    GroupMax(width=128, k=8),
]
SHORT = {"tokens": 45 * 128, "batch_tokens": 128, "learning_rate": 1e-2, "progress": SILENT}


def explained_variance(dictionary: Dictionary, x: Tensor) -> float:
    left = (x - dictionary(x)).square().sum()
    return float(1 - (left / (x - x.mean(0)).square().sum()).detach())


@pytest.fixture(scope="module")
def trained(planted: Harvest) -> list[Dictionary]:
    """All of them from one pass."""
    return fit(
        RECIPES, planted, tokens=150 * 256, batch_tokens=256, learning_rate=1e-2, progress=SILENT
    )


@pytest.mark.parametrize("place", range(len(RECIPES)), ids=lambda place: str(RECIPES[place]))
def test_heldout_tokens_are_explained_with_the_sparsity_asked_for(
    trained: list[Dictionary], planted: Harvest, place: int
):
    dictionary, recipe = trained[place], RECIPES[place]
    heldout = planted.select("heldout").activations()
    assert explained_variance(dictionary, heldout) > 0.75
    l0 = float(dictionary.encode(heldout).l0().mean())
    match recipe:
        case JumpReLU(penalty="quadratic", target_l0=wanted):
            assert l0 == pytest.approx(wanted, rel=0.2)
        case JumpReLU():
            assert l0 < 12  # of 128, about 64 at the start
        case Matryoshka(sparsifier="batchtopk", k=k):
            assert l0 == pytest.approx(k, rel=0.02)
        case Matryoshka(k=k) | AbsTopK(k=k) | GroupMax(k=k):
            assert l0 <= k
        case _:
            raise AssertionError(recipe)
    norms = dictionary.directions.norm(dim=1)
    assert torch.allclose(norms, torch.ones(dictionary.width), atol=1e-5)


def test_only_abs_topk_has_negative_values(trained: list[Dictionary], planted: Harvest):
    heldout = planted.select("heldout").activations()[:1000]
    for dictionary, recipe in zip(trained, RECIPES, strict=True):
        negative = bool((dictionary.encode(heldout).values < 0).any())
        assert negative == isinstance(recipe, AbsTopK)


def test_early_latents_of_a_matryoshka_reconstruct_on_their_own(
    trained: list[Dictionary], planted: Harvest
):
    heldout = planted.select("heldout").activations()[:2000]
    nested, plain = trained[4], trained[5]

    def by_first_eight(dictionary: Dictionary) -> float:
        codes = dictionary.encode(heldout).dense()[:, :8]
        left = heldout - codes @ dictionary.W_dec.detach()[:8] - dictionary.bias
        return float(1 - left.square().sum() / (heldout - heldout.mean(0)).square().sum())

    assert by_first_eight(nested) > by_first_eight(plain) + 0.05


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_unit_of_the_activations_does_not_matter(
    recipe: Recipe, planted_rows: Tensor, make_harvest: MakeHarvest
):
    rows = planted_rows[:5000]
    small = fit(recipe, make_harvest(rows), **SHORT)
    large = fit(recipe, make_harvest(1024 * rows), **SHORT)
    assert torch.allclose(large.encode(1024 * rows).dense(), 1024 * small.encode(rows).dense())


class _Stop(Exception):
    """Ends a run in its middle."""


class _StoppingLog:
    """Ends a run at its second look, after which a checkpoint stands."""

    def __init__(self) -> None:
        self.looks = 0

    def write(self, rows: object) -> None:
        del rows
        self.looks += 1
        if self.looks == 2:
            raise _Stop

    def close(self) -> None:
        pass


def test_stopped_and_resumed_run_is_bit_identical(
    planted: Harvest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("modelassay.fitting.trainer.SAVE_EVERY_SECONDS", 0)
    whole = fit(RECIPES, planted, **SHORT)
    with pytest.raises(_Stop):
        fit(RECIPES, planted, checkpoint=tmp_path / "run", log=[_StoppingLog()], **SHORT)
    resumed = fit(RECIPES, planted, checkpoint=tmp_path / "run", resume=True, **SHORT)
    for one, other in zip(whole, resumed, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), (one.name, name)


def test_what_was_trained_is_stored_whole(trained: list[Dictionary], tmp_path: Path):
    x = torch.randn(20, 32, generator=torch.Generator().manual_seed(0))
    for place, dictionary in enumerate(trained):
        dictionary.save(tmp_path / str(place))
        again = load_decomposition(tmp_path / str(place))
        assert isinstance(again, Dictionary)
        assert again.recipe == dictionary.recipe
        assert torch.equal(again(x), dictionary(x))


def test_a_models_activations_are_learned(tmp_path: Path):
    store = harvest(
        load_subject("bundled"),
        stdlib_corpus(),
        sites="resid_post.2",
        tokens=8000,
        progress=SILENT,
        directory=tmp_path,
    )
    heldout = store.select("heldout").activations().float()
    mean = store.select("fit").moments().mean.float()
    recipes: list[Recipe] = [
        JumpReLU(width=256, target_l0=16.0),
        Matryoshka(width=256, k=16),
        AbsTopK(width=256, k=16),
        GroupMax(width=256, k=16),
    ]
    fitted = fit(recipes, store, tokens=128 * 256, batch_tokens=256, progress=SILENT)
    for recipe, dictionary in zip(recipes, fitted, strict=True):
        d = len(mean)
        start = recipe.build(d, d, mean, torch.Generator().manual_seed(0), None)
        if isinstance(start.activation, BatchTopKActivation):
            pre = start.pre_activations(heldout).detach()
            start.activation.calibrate(float(pre.quantile(1 - 16 / 256)))
        after = explained_variance(dictionary, heldout)
        assert after > 0.3, dictionary.name
        assert after > explained_variance(start, heldout) + 0.2, dictionary.name
