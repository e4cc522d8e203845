"""The micro-benchmark: what it measures is there, positive, and of the sizes asked for."""

from pathlib import Path

import pytest
import torch

from modelassay.core.errors import StorageError
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.recipes import GroupMax, JumpReLU, Matryoshka, ReLUL1, TopK
from modelassay.fitting.forecast import forecast
from modelassay.fitting.forecast_block import TimedBlock
from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_disk import disk_rates, free_bytes, nearest_folder
from modelassay.fitting.forecast_job import Job, ModelShape
from modelassay.fitting.forecast_measure import RecipeOfWidth, measure_hardware

MODEL = ModelShape(
    name="m",
    d_model=16,
    layers=2,
    heads=2,
    block_parameters=2 * 12 * 16**2,
    parameters=7000,
    attention_width=16,
)


def job_of(recipe: Recipe) -> Job:
    return Job(
        model=MODEL,
        blocks_run=1,
        dictionaries=(DictionaryShape.of(recipe),),
        tokens=10_000,
        batch_tokens=32,
        context_tokens=8,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda width: TopK(width=width, k=3),
        lambda width: GroupMax(width=width, k=3),
        lambda width: Matryoshka(width=width, k=3),
        lambda width: ReLUL1(width=width),
        lambda width: JumpReLU(width=width, target_l0=3.0),
    ],
    ids=["TopK", "GroupMax", "Matryoshka", "ReLU", "JumpReLU"],
)
def test_every_kind_of_dictionary_is_measured(
    make: RecipeOfWidth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A smaller copy: what is tested is not how exact the rate is.
    monkeypatch.setattr("modelassay.fitting.forecast_measure._COPIED_ENTRIES", 1000)
    job = job_of(make(96))
    found = measure_hardware(job, make, device="cpu", folder=tmp_path / "not there yet")
    assert found.origin == "measured"
    assert set(found.product_flops) == {"float32", "bfloat16"}
    assert min(found.product_flops.values()) > 0
    assert found.step_units is not None
    assert min(found.step_units, found.step_factor, found.forward_factor) > 0
    assert found.disk_free_bytes == pytest.approx(free_bytes(tmp_path), rel=0.01)
    assert list(tmp_path.iterdir()) == []
    assert 0 < forecast(job, found).hours < 1


def test_a_measured_step_is_forecast_as_it_was_measured(tmp_path: Path):
    """At the sizes of the micro-benchmark itself, the forecast is the measurement."""

    def make(width: int) -> Recipe:
        return TopK(width=width, k=3)

    job = job_of(make(96))
    found = measure_hardware(job, make, device="cpu", folder=tmp_path)
    terms = {term.name: term.seconds for term in forecast(job, found).terms}
    product = 2 * 32 * 16 * 96 / found.products("float32")
    steps = job.steps * product * found.step_factor
    assert terms["encoder products"] == pytest.approx(steps)


def test_a_block_has_as_many_weights_as_the_models():
    block = TimedBlock(MODEL, torch.Generator().manual_seed(0), torch.device("cpu"), torch.float32)
    assert block.parameters == MODEL.block_parameters // MODEL.layers
    resid = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    assert block(resid).shape == resid.shape


def test_a_block_reads_no_later_token():
    block = TimedBlock(MODEL, torch.Generator().manual_seed(0), torch.device("cpu"), torch.float32)
    resid = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
    changed = resid.clone()
    changed[:, 3:] += 1
    assert torch.allclose(block(resid)[:, :3], block(changed)[:, :3])
    assert not torch.allclose(block(resid)[:, 3:], block(changed)[:, 3:])


def test_a_disk_is_measured_at_the_nearest_folder_and_left_as_it_was(tmp_path: Path):
    place = tmp_path / "a" / "b"
    assert nearest_folder(place) == tmp_path.resolve()
    assert min(disk_rates(place)) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_may_not_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(StorageError, match="must be writable; got 'Permission denied'"):
        disk_rates(tmp_path)
