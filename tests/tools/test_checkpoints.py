"""Checkpoints of a training run: which are kept, that they load, and that a run goes on exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from modelassay.core.randomness import generator
from modelassay.subjects.load import load_subject
from tools.bundled.checkpoints import FOLDER, RESUME, is_kept, keep, rows_up_to
from tools.bundled.train import HERE, Plan, Run, plan_of, train_run

STEPS = 5


def tiny_model() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=2048, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    g = generator(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) / 4)
    return model


def draw(g: torch.Generator) -> Tensor:
    return torch.randint(2048, (2, 9), generator=g)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(HERE)


def run_of(plan: Plan, tokenizer) -> Run:
    return Run(plan, tiny_model(), tokenizer)


def weights(run: Run) -> list[Tensor]:
    return [parameter.detach() for parameter in run.model.parameters()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tokenizer) -> Run:
    out = tmp_path_factory.mktemp("whole")
    run = run_of(Plan(out=out, steps=STEPS, keep_checkpoints=True), tokenizer)
    train_run(run, draw, lambda: 1.0)
    return run


def test_steps_are_kept_in_powers_of_two_and_zero():
    assert [step for step in range(70) if is_kept(step)] == [0, 1, 2, 4, 8, 16, 32, 64]


def test_kept_checkpoints_load_as_models_and_the_first_is_untrained(whole: Run):
    folders = sorted((whole.plan.out / FOLDER).iterdir())
    assert [f.name for f in folders] == [f"step-{n:06d}" for n in (0, 1, 2, 4, STEPS)]
    first, last = (load_subject(folder) for folder in (folders[0], folders[-1]))
    assert first.tokenizer is not None
    for loaded, expected in ((first, tiny_model()), (last, whole.model)):
        for one, other in zip(loaded.module.parameters(), expected.parameters(), strict=True):
            assert torch.equal(one, other)


def test_an_interrupted_run_goes_on_with_the_very_steps_that_were_to_come(
    whole: Run, tokenizer, tmp_path: Path
):
    plan = Plan(out=tmp_path, steps=STEPS, keep_checkpoints=True)
    run = run_of(plan, tokenizer)

    def interrupted(g: torch.Generator) -> Tensor:
        if run.step == 3:
            raise KeyboardInterrupt
        return draw(g)

    with pytest.raises(KeyboardInterrupt):
        train_run(run, interrupted, lambda: 1.0)
    again = run_of(replace(plan, resume=True), tokenizer)
    assert again.step == 2  # the latest saved one: step 3 is taken again
    train_run(again, draw, lambda: 1.0)
    assert all(map(torch.equal, weights(again), weights(whole)))
    assert sorted(p.name for p in (tmp_path / FOLDER).iterdir()) == sorted(
        p.name for p in (whole.plan.out / FOLDER).iterdir()
    )


def test_a_run_is_not_resumed_with_other_options(whole: Run, tokenizer):
    with pytest.raises(SystemExit, match="must repeat the options of the run"):
        run_of(replace(whole.plan, seed=1, resume=True), tokenizer)


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(tmp_path: Path, tokenizer):
    class Unwritable:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "config.json").write_text("{", "utf-8")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        keep(8, Unwritable(), tokenizer, tmp_path)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_the_log_goes_on_after_the_saved_step(tmp_path: Path):
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n50,3.0\n100,2.5\n150,2.0\n", "utf-8")
    assert rows_up_to(log, 100) == [["step", "loss"], ["50", "3.0"], ["100", "2.5"]]


def test_the_default_plan_is_that_of_the_bundled_model():
    assert plan_of([]) == Plan(out=HERE, minutes=50.0, steps=None, seed=0)
    assert plan_of(["--steps", "512", "--keep-checkpoints"]).steps == 512


def test_nothing_is_kept_unless_asked_for(tmp_path: Path, tokenizer):
    run = run_of(Plan(out=tmp_path, steps=1), tokenizer)
    train_run(run, draw, lambda: 1.0)
    assert not (tmp_path / FOLDER).exists()
    assert not (tmp_path / RESUME).exists()
