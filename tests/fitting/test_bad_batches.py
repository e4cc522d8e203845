"""Batches with NaN or Inf: named, or left out as if they had not come."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modelassay.activations.corpus import corpus_from_texts
from modelassay.activations.harvest import Harvest
from modelassay.activations.streaming import stream_harvest
from modelassay.core.errors import NonFiniteError
from modelassay.core.progress import SILENT
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.recipes import BatchTopK, JumpReLU, TopK
from modelassay.fitting import trainer as trainer_module
from modelassay.fitting.bad_batches import CheckedBatches
from modelassay.fitting.fit import fit
from modelassay.fitting.options import TrainingOptions
from modelassay.subjects.load import load_subject

MakeHarvest = Callable[[Tensor], Harvest]

BATCH, STEPS = 100, 40
SKIP = TrainingOptions(bad_batches="skip", dead_latents="resample", resampling_share=0.3)
SHORT: dict[str, Any] = {"tokens": STEPS * BATCH, "batch_tokens": BATCH, "progress": SILENT}
RECIPES = [TopK(width=48, k=3), BatchTopK(width=48, k=3), JumpReLU(width=48, target_l0=3.0)]


class Numbered:
    """Batches that hold their own number, some of them spoilt."""

    batch_tokens = 4

    def __init__(self, bad: set[int]) -> None:
        self.bad = bad
        self.number = 0

    def __next__(self) -> Tensor:
        batch = torch.full((4, 2), float(self.number))
        if self.number in self.bad:
            batch[1, 0], batch[3, 1] = torch.nan, -torch.inf
        self.number += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.number = state["number"]


def test_only_finite_batches_are_handed_on_and_the_others_counted():
    bad = {0, 3, 4}
    checked = CheckedBatches(
        Numbered(bad), policy="skip", steps=5, places=lambda n: {"mlp_out.0": f"batch {n}"}
    )
    with pytest.warns(UserWarning, match="Left out a batch") as caught:
        seen = [float(next(checked)[0, 0]) for _ in range(5)]
    assert seen == [1, 2, 5, 6, 7]
    assert (checked.skipped_batches, checked.skipped_rows, checked.bad_rows) == (3, 12, 6)
    assert checked.facts() == {"skipped_batches": 3, "skipped_rows": 12, "bad_rows": 6}
    assert [str(warning.message) for warning in caught] == [
        f"Left out a batch: NaN or Inf before step {step} at 'mlp_out.0' in batch {number}."
        for step, number in ((1, 0), (3, 3), (3, 4))
    ]


@pytest.mark.parametrize("taken", range(6))
def test_counts_go_on_where_they_were_left(taken: int):
    def checked(*, warns: bool = False) -> CheckedBatches:
        return CheckedBatches(Numbered({1, 2, 6}), policy="skip", steps=9, warns=warns)

    first, second = checked(), checked()
    for _ in range(taken):
        next(first)
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        assert torch.equal(next(first), next(second))
    assert first.state_dict() == second.state_dict()


def test_too_many_bad_batches_end_the_run():
    checked = CheckedBatches(Numbered(set(range(5, 100))), policy="skip", steps=120, warns=False)
    for _ in range(5):
        next(checked)
    with pytest.raises(NonFiniteError, match=r"At most 12 batches .* got 13 with 26 bad rows"):
        next(checked)
    assert checked.skipped_batches == 13
    short = CheckedBatches(Numbered(set(range(11))), policy="skip", steps=1, warns=False)
    with pytest.raises(NonFiniteError, match="At most 10 batches of this run may be left out"):
        next(short)


def test_nothing_is_looked_at_where_a_run_is_to_stop():
    checked = CheckedBatches(Numbered({0}), policy="stop", steps=5)
    assert next(checked).isnan().any()
    assert checked.state_dict() == {"number": 1}
    assert checked.facts() == {}


def test_large_finite_numbers_of_half_precision_are_not_taken_for_infinite():
    class Halves(Numbered):
        def __next__(self) -> Tensor:
            return torch.full((4, 2), 60_000.0, dtype=torch.float16)  # whose sum would overflow

    checked = CheckedBatches(Halves(set()), policy="skip", steps=5)
    assert next(checked).isfinite().all()
    assert checked.skipped_batches == 0


def rows_with(rows: Tensor, spoilt: list[int]) -> Tensor:
    """Rows of documents of 50 tokens, some of which hold NaN or Inf."""
    rows = rows[:5000].clone()
    rows[spoilt, 7] = torch.tensor([torch.nan, torch.inf] * len(spoilt))[: len(spoilt)]
    return rows


def weights_and_figures(dictionary: Dictionary) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in dictionary.state_dict().items()}


def without_bad_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams deal out finite batches alone, by themselves."""
    from modelassay.activations.stream import ActivationStream

    following = ActivationStream.__next__

    def finite(self: ActivationStream) -> Tensor:
        while True:
            batch = following(self)
            if batch.isfinite().all():
                return batch

    monkeypatch.setattr(ActivationStream, "__next__", finite)


def test_a_batch_that_is_left_out_changes_nothing(
    planted_rows: Tensor, make_harvest: MakeHarvest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    harvest = make_harvest(rows_with(planted_rows, [130, 1334, 4021]))
    with pytest.warns(UserWarning, match="Left out a batch: NaN or Inf before step"):
        found = fit(RECIPES, harvest, options=SKIP, log=tmp_path / "found.csv", **SHORT)
    facts = [d.provenance.facts for d in found if d.provenance]
    # One epoch holds each bad row once, all of them in batches of their own.
    assert {(f["skipped_batches"], f["skipped_rows"], f["bad_rows"]) for f in facts} == {
        (3, 300, 3)
    }
    without_bad_batches(monkeypatch)
    expected = fit(RECIPES, harvest, options=SKIP, log=tmp_path / "expected.csv", **SHORT)
    for one, other in zip(found, expected, strict=True):
        assert weights_and_figures(one).keys() == weights_and_figures(other).keys()
        for name, tensor in weights_and_figures(one).items():
            assert torch.equal(tensor, weights_and_figures(other)[name]), name
    lines = [(tmp_path / f"{name}.csv").read_text().splitlines() for name in ("found", "expected")]
    assert [line.rsplit(",", 1)[0] for line in lines[0]] == [
        line.rsplit(",", 1)[0] for line in lines[1]
    ]
    assert lines[0][0].endswith(",skipped_rows")
    assert lines[0][-1].endswith(",300")
    assert lines[1][-1].endswith(",0")


def test_a_run_with_bad_batches_that_is_resumed_is_bit_identical(
    planted_rows: Tensor, make_harvest: MakeHarvest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    harvest = make_harvest(rows_with(planted_rows, list(range(10, 4000, 1000))))
    monkeypatch.setattr(trainer_module, "SAVE_EVERY_SECONDS", 0.0)
    save, saves = trainer_module.Trainer.save, iter(range(10))

    def stopping(self: trainer_module.Trainer) -> None:
        save(self)
        if next(saves) == 0:
            raise KeyboardInterrupt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = fit(RECIPES, harvest, options=SKIP, log=tmp_path / "whole.csv", **SHORT)
        kept = {"checkpoint": tmp_path / "run", "log": tmp_path / "resumed.csv", "options": SKIP}
        monkeypatch.setattr(trainer_module.Trainer, "save", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(RECIPES, harvest, **kept, **SHORT)
        resumed = fit(RECIPES, harvest, resume=True, **kept, **SHORT)
    for one, other in zip(whole, resumed, strict=True):
        for name, tensor in weights_and_figures(one).items():
            assert torch.equal(tensor, weights_and_figures(other)[name]), name
        assert one.provenance is not None
        assert other.provenance is not None
        assert one.provenance.facts == other.provenance.facts
        assert one.provenance.facts["bad_rows"] == 4
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_stopping_names_the_site_and_the_document(planted_rows: Tensor, make_harvest: MakeHarvest):
    harvest = make_harvest(rows_with(planted_rows, [130, 1334]))
    message = (
        r"NaN or Inf at 'resid_post\.1' in 2 of 4000 tokens, first in token 30 of context 2 "
        r"\(document '2'\)"
    )
    with pytest.raises(NonFiniteError, match=message):
        fit(RECIPES[0], harvest, **SHORT)


def test_a_batch_that_turns_bad_is_named_with_its_step_and_its_documents(
    planted_rows: Tensor, make_harvest: MakeHarvest
):
    rows = rows_with(planted_rows, [])
    harvest = make_harvest(rows)
    side = harvest.select("fit")
    side.moments()  # computed while all was well
    rows[1334, 7] = torch.inf
    sides = {"fit": side, "heldout": make_harvest(rows_with(planted_rows, [])).select("heldout")}
    object.__setattr__(harvest, "select", sides.__getitem__)
    message = (
        r"at resid_post\.1 \(1 of 100 tokens, first in token 34 of context 21 "
        r"\(document '26'\)\) in the batch of step (\d+)\. Check"
    )
    with pytest.raises(NonFiniteError, match=message):
        fit(RECIPES[0], harvest, **SHORT)


def test_heldout_tokens_that_are_not_finite_calibrate_nothing(
    planted_rows: Tensor, make_harvest: MakeHarvest
):
    harvest = make_harvest(rows_with(planted_rows, [201, 202, 203]))  # the first held-out document
    with pytest.raises(NonFiniteError, match=r"Held-out activations .* 3 of 1000 tokens"):
        fit(RECIPES[1], harvest, **SHORT)
    with pytest.warns(UserWarning, match=r"Left out 3 held-out tokens with NaN or Inf at resid_p"):
        found = fit(RECIPES[1], harvest, options=replace(SKIP, dead_latents="default"), **SHORT)
    clean = make_harvest(rows_with(planted_rows, []))
    expected = fit(RECIPES[1], clean, **SHORT)
    assert float(found.activation.threshold) == pytest.approx(
        float(expected.activation.threshold), rel=0.02
    )
    assert torch.equal(found.W_enc, expected.W_enc)


def test_activations_without_a_finite_row_are_refused(
    planted_rows: Tensor, make_harvest: MakeHarvest
):
    harvest = make_harvest(torch.full_like(planted_rows[:1000], torch.nan))
    with pytest.raises(NonFiniteError, match="NaN or Inf in every token at 'resid_post"):
        fit(RECIPES[0], harvest, options=SKIP, **SHORT)


def test_a_model_that_gives_nan_while_it_is_fitted_to_is_left_out():
    subject = load_subject("bundled")
    texts = [f"def f{i}(x):\n    return x + {i}\n" * 8 for i in range(30)]
    corpus = corpus_from_texts(texts, source="functions")
    # Before any attention, so that one token's NaN is not another's.
    sites = ["resid_pre.0", "attn_in.0"]
    streamed = stream_harvest(subject, corpus, sites, context_tokens=32, buffer_tokens=600)
    contexts = streamed.select("fit").contexts
    counts = torch.bincount(contexts.tokens[contexts.measured])
    rare = int(torch.where(counts > 0, counts, len(contexts) ** 2).argmin())
    assert counts[rare] < 10
    with torch.no_grad():
        embedding = subject.module.get_input_embeddings().weight
        before = embedding[rare].clone()
        embedding[rare] = torch.nan
    try:
        options: dict[str, Any] = {"tokens": 160 * 16, "batch_tokens": 16, "progress": SILENT}
        with pytest.raises(NonFiniteError, match="in context"):
            fit(RECIPES[:1], streamed, site=sites, **options)
        with pytest.warns(UserWarning, match=r"'resid_pre\.0' in .*; 'attn_in\.0' in .*document"):
            found = fit(RECIPES[:1], streamed, site=sites, options=SKIP, **options)
    finally:
        with torch.no_grad():
            embedding[rare] = before
    for dictionary in found:
        assert all(tensor.isfinite().all() for tensor in dictionary.state_dict().values())
        assert dictionary.provenance is not None
        assert int(str(dictionary.provenance.facts["bad_rows"])) > 0
