"""The audit end to end on the bundled model: stored whole, resumed exactly, refused early."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from modelassay.activations.harvest import Harvest, harvest
from modelassay.audit.assay import audit
from modelassay.audit.result import Audit, load_audit
from modelassay.audit.rivals import recipe_like
from modelassay.audit.run import AuditConfig, contexts_of, run_audit
from modelassay.audit.settings import AuditSettings
from modelassay.core.errors import (
    CorruptFileError,
    OutputExistsError,
    ProvenanceError,
    ShapeError,
    TooFewTokensError,
    UnknownNameError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.progress import SILENT
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.linear import Neurons
from modelassay.decompositions.recipes import TopK
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject
from modelassay.subjects.testing import tiny_subject

SETTINGS = AuditSettings(
    read_samples=4,
    baseline_latents=4,
    null_directions=8,
    recovered_tokens=500,
    visible_tokens=500,
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for path in sorted(Path(os.__file__).parent.glob("*.py"))[:100]:
        head = path.read_text("utf-8", errors="replace")[:3000]
        (folder / path.name).write_text(head, "utf-8")
    return folder


@pytest.fixture(scope="module")
def config(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> AuditConfig:
    return AuditConfig(
        recipe=TopK(width=24, k=3),
        corpus=texts,
        tokens=14_000,
        fit_tokens=20_000,
        settings=SETTINGS,
        out=tmp_path_factory.mktemp("audit") / "whole",
    )


@pytest.fixture(scope="module")
def whole(config: AuditConfig) -> Audit:
    return run_audit(config, SILENT)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return load_subject("bundled")


@pytest.fixture(scope="module")
def activations(subject: Subject, config: AuditConfig) -> Harvest:
    return harvest(subject, contexts_of(config, subject), "resid_post.2", progress=SILENT)


def assert_same(one: object, other: object, path: str = "audit") -> None:
    """Equal dataclasses, tensors to the bit (NaN equals NaN), but for when they were made."""
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor), path
        assert one.shape == other.shape, path
        assert torch.equal(one.nan_to_num(-7), other.nan_to_num(-7)), path
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):  # type: ignore[arg-type]
            if field.name != "created":
                mine, theirs = getattr(one, field.name), getattr(other, field.name)
                assert_same(mine, theirs, f"{path}.{field.name}")
    elif isinstance(one, tuple):
        assert isinstance(other, tuple), path
        assert len(one) == len(other), path
        for number, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, theirs, f"{path}[{number}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-5, nan_ok=True), path
    elif isinstance(one, dict):
        assert isinstance(other, dict), path
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}[{key!r}]")
    else:
        assert one == other, path


class _Interrupting:
    """Presses Ctrl-C when a piece of work begins for the given time."""

    def __init__(self, description: str, occurrence: int) -> None:
        self.description, self.left = description, occurrence

    @contextmanager
    def task(self, description: str, *, total: int, unit: str) -> Generator[object]:
        if description.startswith(self.description):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        with SILENT.task(description, total=total, unit=unit) as task:
            yield task


def without_rounding(audit: Audit) -> Audit:
    """Decomposition-level evidence stands in JSON with six digits; compare what is exact."""
    return replace(audit, reconstruction=(), baselines={})


@pytest.mark.slow
def test_what_is_stored_is_what_was_found(config: AuditConfig, whole: Audit):
    loaded = load_audit(config.out)
    assert_same(without_rounding(whole), without_rounding(loaded))
    for mine, theirs in zip(whole.reconstruction, loaded.reconstruction, strict=True):
        assert mine.name == theirs.name
        for evidence in mine.evidence:
            found = theirs[evidence.name].at()
            assert found == pytest.approx(evidence.at(), rel=1e-4, abs=1e-5, nan_ok=True)
    assert loaded.passport(3).verdict == whole.verdicts[3]
    assert set(loaded.passport(3).estimates) >= {"written", "read", "null_twin_match", "stable"}


@pytest.mark.slow
@pytest.mark.parametrize(("description", "occurrence"), [("Fitting", 3), ("Read test", 2)])
def test_an_interrupted_audit_goes_on_to_the_same_result(
    config: AuditConfig, whole: Audit, tmp_path: Path, description: str, occurrence: int
):
    again = replace(config, out=tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        run_audit(again, _Interrupting(description, occurrence))
    assert not (again.out / "audit.json").exists()
    with pytest.raises(OutputExistsError, match=r"an interrupted audit\. Go on with --resume"):
        run_audit(again, SILENT)
    other = replace(again, resume=True, seed=9)
    with pytest.raises(ProvenanceError, match="--resume must repeat the interrupted audit"):
        run_audit(other, SILENT)
    assert_same(whole, run_audit(replace(again, resume=True), SILENT))
    assert sorted(p.name for p in again.out.iterdir()) == [
        "audit.json",
        "audit.safetensors",
        "dictionary",
    ]


@pytest.mark.slow
def test_an_audit_that_lost_a_part_is_refused(config: AuditConfig, whole: Audit, tmp_path: Path):
    whole.save(tmp_path)
    text = (tmp_path / "audit.json").read_text("utf-8")
    (tmp_path / "audit.json").write_text(text.replace('"thresholds"', '"tresholds"', 1))
    with pytest.raises(CorruptFileError, match="must be complete; got none of 'thresholds'"):
        load_audit(tmp_path)
    (tmp_path / "audit.json").write_text(text.replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(CorruptFileError, match="schema_version 1; got 9"):
        load_audit(tmp_path)


@pytest.mark.slow
def test_names_and_latents_that_are_not_there(whole: Audit):
    with pytest.raises(UnknownNameError, match="Did you mean 'written'"):
        whole.evidence("writen")
    with pytest.raises(ValueRangeError, match=r"must lie in 0 … 23; got 24"):
        whole.passport(24)


def test_a_fifth_of_the_tokens_is_held_out(subject: Subject, config: AuditConfig):
    contexts = contexts_of(config, subject)
    heldout = contexts.select("heldout").n_tokens / contexts.n_tokens
    assert 0.15 < heldout < 0.3
    assert contexts.fingerprint() == contexts_of(config, subject).fingerprint()


def test_what_does_not_belong_together_is_refused(subject: Subject, activations: Harvest):
    other = tiny_subject()
    with pytest.raises(ProvenanceError, match="The harvest must come from the audited model"):
        audit(other, Neurons(128, activations.sites[0]), activations, progress=SILENT)
    with pytest.raises(ShapeError, match=r"width 128 \(resid_post\.2\); got one of width 12"):
        audit(subject, Neurons(12, activations.sites[0]), activations, progress=SILENT)


def test_too_few_tokens_are_refused_before_anything_is_written(config: AuditConfig, tmp_path: Path):
    with pytest.raises(TooFewTokensError, match="at least 2,000 held-out tokens; got"):
        run_audit(replace(config, tokens=3000, out=tmp_path / "out"), SILENT)
    assert not (tmp_path / "out").exists()


def test_a_text_for_a_model_without_tokenizer_is_refused(config: AuditConfig):
    with pytest.raises(UnsupportedModelError, match=r"Pass --corpus with a \.jsonl file"):
        contexts_of(config, tiny_subject())


def test_an_unknown_corpus_suggests(texts: Path, subject: Subject, config: AuditConfig):
    with pytest.raises(UnknownNameError, match="A path to texts must be one of"):
        contexts_of(replace(config, corpus=texts.parent / "txts"), subject)


def test_a_dense_decomposition_is_matched_by_a_sparse_recipe():
    dense = Codes.from_dense(torch.ones(4, 40))
    assert recipe_like(Neurons(40), dense) == TopK(width=40, k=10)
    sparse = Codes.from_dense(torch.eye(40))
    assert recipe_like(Neurons(40), sparse) == TopK(width=40, k=1)


@pytest.mark.parametrize("name", ["read_samples", "visible_tokens"])
def test_settings_must_be_positive(name: str):
    with pytest.raises(ValueRangeError, match=f"{name} must be at least 1; got 0"):
        AuditSettings(**{name: 0})
