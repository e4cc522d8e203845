"""Seconds by hand, properties, extremes, and what a forecast warns of."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.fitting.forecast import forecast
from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_hardware import DATA_SHEETS, Hardware, named_hardware
from modelassay.fitting.forecast_job import Job, ModelShape
from modelassay.fitting.forecast_layout import USABLE_MEMORY
from modelassay.fitting.forecast_time import (
    Layout,
    Term,
    communication,
    forward_seconds,
    hours,
    run_terms,
    step_terms,
)

MODEL = ModelShape(
    name="m",
    d_model=100,
    layers=2,
    heads=1,
    block_parameters=2 * 10_000,
    parameters=30_000,
    attention_width=100,
)
SPARSE = DictionaryShape(name="sparse", width=1000, active=10.0, unit_decoder=False, revives=False)
DENSE = replace(SPARSE, name="dense", active=None)
JOB = Job(
    model=MODEL,
    blocks_run=1,
    dictionaries=(SPARSE,),
    tokens=10_000,
    batch_tokens=1000,
    context_tokens=50,
)
HARDWARE = Hardware(
    name="a machine",
    origin="measured",
    product_flops={"float32": 1e9, "bfloat16": 5e8},
    memory_bandwidth=1e6,
    memory_bytes=10**9,
    disk_write=1e6,
    disk_read=2e6,
    link_bandwidth=1e6,
)
LARGE = ModelShape(
    name="8B",
    d_model=4096,
    layers=32,
    heads=32,
    block_parameters=7 * 10**9,
    parameters=8 * 10**9,
    attention_width=4096,
)


def seconds_by_name(terms: Iterable[Term]) -> dict[str, float]:
    return {term.name: term.seconds for term in terms}


def test_seconds_of_a_sparse_step_by_hand():
    found = seconds_by_name(step_terms(SPARSE, JOB, HARDWARE, rows=1000))
    assert found["encoder products"] == pytest.approx(2 * 1000 * 100 * 1000 / 1e9)
    # A token: 2 passes over 1000 pre-activations, 4 over 10 rows of 100, 12 over one of 100.
    moved = 4 * (2 * 1000 + 4 * 10 * 100 + 12 * 100)
    assert found["selection and active rows"] == pytest.approx(1000 * moved / 1e6)
    # 11 passes over all parameters and one over the encoder.
    parameters = 2 * 100 * 1000 + 1000 + 100
    weights = 4 * (11 * parameters + 100 * 1000)
    assert found["optimiser and weights"] == pytest.approx(weights / 1e6)


def test_seconds_of_a_dense_step_by_hand():
    found = seconds_by_name(step_terms(DENSE, JOB, HARDWARE, rows=1000))
    assert found["other dense products"] == pytest.approx(4 * found["encoder products"])
    moved = 4 * (12 * 1000 + 12 * 100)
    assert found["selection and active rows"] == pytest.approx(1000 * moved / 1e6)


def test_measured_factors_multiply_what_they_were_measured_on():
    slow = replace(HARDWARE, step_factor=3.0, forward_factor=2.0)
    before = hours(step_terms(SPARSE, JOB, HARDWARE, rows=10))
    assert hours(step_terms(SPARSE, JOB, slow, rows=10)) == pytest.approx(3 * before)
    before = hours(forward_seconds(JOB, HARDWARE))
    assert hours(forward_seconds(JOB, slow)) == pytest.approx(2 * before)


def test_what_devices_send_by_hand():
    sent = communication(JOB, Layout(shards=4, replicas=2))
    assert sent.candidates == 4 * 3 * 500 * 10
    assert sent.reconstruction == pytest.approx(4 * 2 * 3 / 4 * 500 * 100)
    assert sent.gradients == 4 * (2 * 100 * 250 + 250 + 100)
    assert communication(JOB, Layout()).total == 0


def test_a_store_pays_once_reading_is_cheaper_than_the_model():
    found = forecast(JOB, HARDWARE).storage
    entry = 400 * 10_000
    model = 3600 * hours(forward_seconds(JOB, HARDWARE)) * 10_000
    assert found.stored_hours == pytest.approx((model + entry / 1e6 + entry / 2e6) / 3600)
    assert found.streamed_hours == pytest.approx(model / 3600)
    assert found.passes_to_pay is not None
    few = forecast(
        replace(JOB, tokens=10_000 * (found.passes_to_pay - 1), passes=found.passes_to_pay - 1),
        HARDWARE,
    )
    enough = forecast(
        replace(JOB, tokens=10_000 * found.passes_to_pay, passes=found.passes_to_pay), HARDWARE
    )
    assert few.streamed
    assert not enough.streamed


def test_a_store_that_is_read_more_slowly_than_the_model_runs_never_pays():
    slow = replace(HARDWARE, disk_read=1.0)
    found = forecast(replace(JOB, passes=5), slow)
    assert found.storage.passes_to_pay is None
    assert found.streamed


def test_a_full_disk_leaves_only_streaming():
    job = replace(JOB, tokens=100_000, passes=10)
    assert not forecast(job, HARDWARE).streamed
    full = forecast(job, replace(HARDWARE, disk_free_bytes=1000))
    assert full.streamed
    assert any("takes 4,000,000 bytes, and the disk has 1,000" in w for w in full.warnings)


def test_the_fewest_shards_that_fit_are_chosen():
    small = replace(HARDWARE, memory_bytes=20_000_000)
    wide = replace(JOB, dictionaries=(replace(SPARSE, width=100_000),))
    found = forecast(wide, small)
    assert found.fits
    assert found.memory.total <= USABLE_MEMORY * small.memory_bytes
    half = replace(small, memory_bytes=int(found.memory.total / USABLE_MEMORY) - 1)
    assert forecast(wide, half).layout.shards > found.layout.shards
    assert any("One device would have to hold" in warning for warning in found.warnings)


def test_what_no_shards_can_hold_is_said_with_a_remedy():
    found = forecast(JOB, replace(HARDWARE, memory_bytes=1000))
    assert not found.fits
    assert "No number of shards" in found.warnings[0]


def test_a_wished_time_is_met_with_no_more_devices_than_it_takes():
    alone = forecast(JOB, HARDWARE)
    fast = replace(HARDWARE, link_bandwidth=1e12)
    found = forecast(JOB, fast, within_hours=0.6 * alone.hours)
    assert found.layout.devices == 2
    assert found.hours <= 0.6 * alone.hours


def test_a_time_that_cannot_be_met_is_said():
    found = forecast(JOB, HARDWARE, within_hours=1e-9)
    assert any("done within 1e-09 hours" in warning for warning in found.warnings)


def test_an_unknown_link_is_left_out_and_said():
    wide = replace(JOB, dictionaries=(replace(SPARSE, width=100_000),))
    unknown = replace(HARDWARE, memory_bytes=20_000_000, link_bandwidth=None)
    found = forecast(wide, unknown)
    assert any("--link" in warning for warning in found.warnings)
    assert "between devices" not in seconds_by_name(found.terms)


def test_a_slower_precision_is_said_with_its_measured_rate():
    found = forecast(replace(JOB, precision="bfloat16"), HARDWARE)
    assert any("bfloat16 are 2.0 times slower" in warning for warning in found.warnings)
    assert not forecast(JOB, HARDWARE).warnings


sizes = st.fixed_dictionaries(
    {
        "width": st.integers(16, 10**7),
        "tokens": st.integers(10**6, 10**11),
        "batch": st.integers(1, 10**6),
        "active": st.one_of(st.none(), st.floats(1, 16)),
    }
)


def job_with(size: dict[str, Any], **changes: int) -> Job:
    size = size | changes
    shape = DictionaryShape(name="x", width=size["width"], active=size["active"])
    return Job(
        model=LARGE,
        blocks_run=16,
        dictionaries=(shape,),
        tokens=size["tokens"],
        batch_tokens=size["batch"],
    )


@given(sizes, st.integers(2, 8))
def test_more_of_anything_never_takes_less(size: dict[str, Any], factor: int):
    hardware = named_hardware("h200")
    layout = Layout()
    least = hours(run_terms(job_with(size), hardware, layout, streamed=True))
    for name in ("width", "tokens"):
        more = job_with(size, **{name: factor * size[name]})
        assert hours(run_terms(more, hardware, layout, streamed=True)) > least
    twice = replace(job_with(size), dictionaries=job_with(size).dictionaries * 2)
    assert hours(run_terms(twice, hardware, layout, streamed=True)) > least


@given(sizes)
def test_faster_hardware_never_takes_longer(size: dict[str, Any]):
    job = job_with(size)
    taken = [
        hours(run_terms(job, named_hardware("h200", share=share), Layout(), streamed=True))
        for share in (0.25, 0.5, 1.0)
    ]
    assert taken[0] > taken[1] > taken[2]


@given(sizes, st.sampled_from([1, 2, 8]), st.sampled_from([1, 2, 8]))
def test_parts_of_a_run_are_finite_and_add_up(size: dict[str, Any], shards: int, replicas: int):
    layout = Layout(shards=shards, replicas=replicas)
    terms = run_terms(job_with(size), named_hardware("a100"), layout, streamed=True)
    assert all(0 < term.seconds < float("inf") for term in terms)
    assert hours(terms) == pytest.approx(sum(term.seconds for term in terms) / 3600)


def test_ten_million_latents_on_a_hundred_billion_tokens():
    shape = DictionaryShape(name="x", width=10**7, active=64.0)
    job = Job(model=LARGE, blocks_run=16, dictionaries=(shape,), tokens=10**11, batch_tokens=2**16)
    found = forecast(job, named_hardware("h200"), within_hours=720.0)
    # 2 d F tokens, the largest part by far, at half of 67 TFLOP/s: 7.8 years of one device.
    assert found.flops.encoder == pytest.approx(2 * 4096 * 1e7 * 1e11, rel=1e-3)
    assert found.fits
    assert found.hours <= 720
    assert 64 <= found.layout.devices <= 1024
    # 12 bytes a parameter and 8 a latent.
    assert found.storage.checkpoint_bytes == pytest.approx(12 * 2 * 4096 * 1e7, rel=1e-3)
    assert found.storage.activation_bytes == 4096 * 4 * 10**11


@pytest.mark.parametrize("name", DATA_SHEETS)
def test_named_hardware_is_a_share_of_its_data_sheet_and_says_so(name: str):
    half, whole = named_hardware(name), named_hardware(name, share=1.0)
    assert half.origin == "assumed"
    assert half.products("bfloat16") == 0.5 * whole.products("bfloat16")
    assert whole.products("float32") < whole.products("tf32") < whole.products("bfloat16")
    assert any("assumed, not measured" in w for w in forecast(JOB, half).warnings)


def test_faults_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'h200'"):
        named_hardware("h20")
    with pytest.raises(ValueRangeError, match=r"at most 1; got 1\.5"):
        named_hardware("h200", share=1.5)
    with pytest.raises(ValueRangeError, match="above 0; got 0"):
        forecast(JOB, HARDWARE, within_hours=0.0)
    with pytest.raises(UnknownNameError, match="one of: float32, bfloat16; got 'tf32'"):
        forecast(replace(JOB, precision="tf32"), HARDWARE)
