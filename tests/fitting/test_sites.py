"""Dictionaries of several sites on one pass: what each would be alone, and the model runs once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modelassay.activations.corpus import corpus_from_texts
from modelassay.activations.harvest import Harvest
from modelassay.activations.matrix import RowMatrix
from modelassay.activations.streaming import stream_harvest
from modelassay.core.errors import CorruptFileError, ProvenanceError, ValueRangeError
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.recipes import BatchTopK, ReLUL1, TopK
from modelassay.fitting import trainer as trainer_module
from modelassay.fitting.checkpoints import read_checkpoint
from modelassay.fitting.fit import fit
from modelassay.fitting.options import TrainingOptions
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

SITES = ["resid_post.1", "mlp_out.10", "mlp_out.1"]
RECIPES = [TopK(width=48, k=3), BatchTopK(width=128, k=3), ReLUL1(width=64)]
EACH = {"seed": [1, 2, 3], "learning_rate": [0.01, 0.003, 0.001]}
SHORT = {"tokens": 30 * 1100, "batch_tokens": 1100, "progress": SILENT}


@pytest.fixture(scope="module")
def several(planted: Harvest, planted_rows: Tensor) -> Harvest:
    """The planted activations at one site; narrower and larger ones at two more."""
    rows = planted_rows[: planted.n_tokens]
    matrices = [rows, 30 * rows[:, :20], torch.cat([rows.flip(0), rows], dim=1)]
    sites = tuple(map(Site.parse, SITES))
    return replace(
        planted,
        sites=sites,
        matrices={
            site: RowMatrix(parts=(matrix,), mapped=False)
            for site, matrix in zip(sites, matrices, strict=True)
        },
    )


def assert_same(one: Dictionary, other: Dictionary) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("normalisation", ["scale", "whitening"])
def test_every_dictionary_is_the_one_that_it_would_be_alone(several: Harvest, normalisation: str):
    options = replace(TrainingOptions(), normalisation=normalisation)
    together = fit(RECIPES, several, site=SITES, options=options, **EACH, **SHORT)
    assert [str(dictionary.reads) for dictionary in together] == [s for s in SITES for _ in RECIPES]
    for place, site in enumerate(SITES):
        alone = fit(RECIPES, several, site=site, options=options, **EACH, **SHORT)
        for number, dictionary in enumerate(alone):
            found = together[place * len(RECIPES) + number]
            assert_same(found, dictionary)
            assert found.provenance is not None
            assert dictionary.provenance is not None
            assert found.provenance.facts == dictionary.provenance.facts
            assert found.provenance.facts["learning_rate"] == EACH["learning_rate"][number]
            assert found.provenance.seed == EACH["seed"][number]


def test_a_recipe_at_several_sites_gives_a_list(several: Harvest):
    found = fit(RECIPES[0], several, site=SITES[:2], **SHORT)
    assert [dictionary.d_in for dictionary in found] == [32, 20]
    with pytest.raises(ValueRangeError, match="must be named where several were harvested"):
        fit(RECIPES[0], several, **SHORT)
    with pytest.raises(ValueRangeError, match=r"one per recipe \(3\); got 2 learning_rates"):
        fit(RECIPES, several, site=SITES, learning_rate=[0.1, 0.2], **SHORT)


def test_an_interrupted_and_resumed_run_is_bit_identical(
    several: Harvest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = fit(RECIPES, several, site=SITES, log=tmp_path / "whole.csv", **EACH, **SHORT)
    kept = {"checkpoint": tmp_path / "run", "log": tmp_path / "resumed.csv"}
    monkeypatch.setattr(trainer_module, "SAVE_EVERY_SECONDS", 0.0)
    view, steps = trainer_module.SiteGroup.view, iter(range(10**6))

    def stopping(self: object, rows: Tensor) -> Tensor:
        if next(steps) == 3 * 27 + 1:  # between two sites of a step
            raise KeyboardInterrupt
        return view(self, rows)

    monkeypatch.setattr(trainer_module.SiteGroup, "view", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit(RECIPES, several, site=SITES, **kept, **EACH, **SHORT)
    resumed = fit(RECIPES, several, site=SITES, resume=True, **kept, **EACH, **SHORT)
    assert sum(1 for _ in steps) == 10**6 - (3 * 27 + 2) - 3 * (30 - 25)  # it went on at step 25
    for one, other in zip(whole, resumed, strict=True):
        assert_same(one, other)
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    names = {line.split(",")[0] for line in (tmp_path / "whole.csv").read_text().splitlines()[1:]}
    assert len(names) == 9
    assert {name.rsplit(" at ")[-1] for name in names} == set(SITES)


def test_a_checkpoint_of_other_sites_or_with_other_tensors_is_refused(
    several: Harvest, tmp_path: Path
):
    kept = {"checkpoint": tmp_path / "run"}
    fit(RECIPES[0], several, site=SITES[:2], **kept, **SHORT)
    with pytest.raises(
        ProvenanceError, match=r"sites was .* now is \['resid_post\.1', 'mlp_out\.1'\]"
    ):
        fit(RECIPES[0], several, site=[SITES[0], SITES[2]], resume=True, **kept, **SHORT)
    with pytest.raises(ProvenanceError, match=r"sites was \['resid_post\.1', 'mlp_out\.10'\] in"):
        fit(RECIPES[0], several, site=SITES[1::-1], resume=True, **kept, **SHORT)


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_state_that_is_not_the_learners_is_refused_by_name(
    several: Harvest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
):
    fit(RECIPES[0], several, site=SITES[:2], checkpoint=tmp_path, **SHORT)
    key = "TopK 48 (k=3) at mlp_out%2E10.W_dec"

    def damaged(directory: Path, configuration: object) -> object:
        checkpoint = read_checkpoint(directory, configuration)
        tensor = checkpoint.tensors.pop(key)
        if damage == "shape":
            checkpoint.tensors[key] = tensor[1:]
        return checkpoint

    monkeypatch.setattr("modelassay.fitting.distributed.checkpoints.read_checkpoint", damaged)
    got = {"missing": "no such tensor", "shape": r"\[47, 20\]"}[damage]
    with pytest.raises(CorruptFileError, match=rf"W_dec .* shape \[48, 20\]; got {got}"):
        fit(RECIPES[0], several, site=SITES[:2], checkpoint=tmp_path, resume=True, **SHORT)


def test_the_model_runs_once_for_all_sites(monkeypatch: pytest.MonkeyPatch):
    subject = load_subject("bundled")
    texts = [f"def f{i}(x):\n    return x + {i}\n" * 8 for i in range(30)]
    corpus = corpus_from_texts(texts, source="functions")
    sites = ["resid_post.1", "mlp_out.0", "resid_post.0"]
    streamed = stream_harvest(subject, corpus, sites, context_tokens=32, buffer_tokens=600)
    run, runs = Subject.run, [0]

    def counted(*args: object, **options: object) -> object:
        runs[0] += 1
        return run(*args, **options)

    monkeypatch.setattr(Subject, "run", counted)
    numbers: list[int] = []
    found: list[list[Dictionary]] = []
    for chosen in (sites[:1], sites):
        source = replace(streamed)  # without the moments that the other one has computed
        runs[0] = 0
        options = {"tokens": 4 * 512, "batch_tokens": 128, "progress": SILENT}
        found.append(fit([TopK(width=24, k=2)], source, site=chosen, **options))
        numbers.append(runs[0])
    assert numbers[0] == numbers[1] > 3
    assert_same(found[0][0], found[1][0])
