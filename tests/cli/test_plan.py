"""`modelassay plan`: what it prints, and what it refuses."""

import json

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner, Result

from modelassay.cli.main import app
from modelassay.cli.plan_schemas import PlanResult
from modelassay.cli.plan_text import in_bytes, in_hours

NUMBERS = ("--parameters", "7e9", "--d-model", "4096", "--layers", "32")
LARGE = (*NUMBERS, "--width", "1e7", "--k", "64", "--tokens", "1e11", "--batch-tokens", "65536")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["plan", *arguments])


def planned(*arguments: str) -> PlanResult:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    return TypeAdapter(PlanResult, config=None).validate_python(
        content, strict=True, extra="forbid"
    )


def test_the_largest_run_on_named_hardware():
    found = planned(*LARGE, "--hardware", "h200", "--within", "720")
    assert found["flops"]["encoder"] == pytest.approx(2 * 4096 * 1e18, rel=1e-4)
    assert found["hours"] <= 720
    assert found["devices"] == found["shards"] * found["replicas"] > 1
    assert found["hardware"]["origin"] == "assumed"
    assert found["hours"] == pytest.approx(sum(term["hours"] for term in found["terms"]), rel=1e-4)


def test_the_bundled_model_on_this_machine():
    found = planned("--width", "128", "--k", "4", "--tokens", "1e5", "--site", "resid_pre.1")
    assert found["subject"] == "bundled"
    assert found["steps"] == 48
    # One block: 2 FLOPs for each of 262,144 weights, and attention over 256 tokens.
    assert found["flops"]["model"] == pytest.approx(1e5 * (2 * 262_144 + 4 * 256 * 128))
    assert found["hardware"]["origin"] == "measured"
    assert found["hardware"]["step_units"] is not None
    assert (found["fits"], found["devices"]) == (True, 1)


def test_several_dictionaries_on_one_pass_share_the_model():
    one = planned(*NUMBERS, "--width", "16384", "--hardware", "h100")
    two = planned(*NUMBERS, "--width", "16384,65536", "--hardware", "h100")
    assert [dictionary["width"] for dictionary in two["dictionaries"]] == [16384, 65536]
    assert two["flops"]["model"] == one["flops"]["model"]
    assert two["flops"]["encoder"] == pytest.approx(5 * one["flops"]["encoder"], rel=1e-5)


def test_a_share_and_a_link_of_ones_own():
    found = planned(*NUMBERS, "--hardware", "a100", "--share", "0.25", "--link", "10")["hardware"]
    assert found["product_flops"]["bfloat16"] == 78e12
    assert found["link_bandwidth"] == 10e9


def test_a_store_where_one_is_asked_for():
    arguments = (*NUMBERS, "--hardware", "a100")
    assert planned(*arguments)["streamed"] is True
    stored = planned(*arguments, "--store", "--dtype", "bfloat16")
    assert stored["streamed"] is False
    assert stored["storage"]["activation_bytes"] == 2 * 4096 * 10**8
    assert stored["memory"]["model"] == 0


def test_the_text_says_all_of_it():
    text = run(*LARGE, "--hardware", "h200", "--within", "720").stdout
    for part in (
        "TopK 10000000 (k=64) at resid_post.15 of a model of 7,000,000,000 parameters",
        "100,000,000,000 tokens in 1,525,878 steps of 65,536",
        "NVIDIA H200 SXM 141 GB, assumed",
        "8.19e+21",
        "optimiser's moments",
        "mostly compute",
        "sent by each device in a step",
        "Checkpoint: 983 GB",
        "are assumed, not measured",
    ):
        assert part in " ".join(text.split()) or part in text
    assert max(map(len, text.splitlines())) <= 96


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1e3, "1 kB"), (1.5e12, "1.5 TB")]
)
def test_bytes_in_words(number: float, text: str):
    assert in_bytes(number) == text


@pytest.mark.parametrize(
    ("hours", "text"),
    [(1 / 3600, "1 s"), (0.5, "30 min"), (2.0, "2 h"), (48_000.0, "2,000 days")],
)
def test_hours_in_words(hours: float, text: str):
    assert in_hours(hours) == text


@pytest.mark.parametrize("count", ["1e-3", "many", "0", "1.5", "inf", "nan"])
def test_counts_that_are_none_are_usage_errors(count: str):
    result = run(*NUMBERS, "--hardware", "h100", "--tokens", count)
    assert result.exit_code == 2
    assert "--tokens" in result.stderr
    assert run(*NUMBERS, "--hardware", "h100", "--width", f"64,{count}").exit_code == 2


def test_faults_are_one_line():
    refused = {
        ("bundled", *NUMBERS): "without a model's name; got a model's name",
        ("--parameters", "1e9"): "must come all three",
        (*NUMBERS, "--site", "resid_post.32"): "Layer must be one of",
        (*NUMBERS, "--width", "8", "--k", "9"): "k must be between 1 and the width, 8; got 9",
        (*NUMBERS, "--share", "0"): "share of peak must be above 0",
        (*NUMBERS, "--link", "0"): "--link must be above 0",
        (*NUMBERS, "--within", "0"): "within_hours must be above 0",
        ("no/such/folder",): "Model must be one of: bundled",
    }
    for arguments, message in refused.items():
        result = run(*arguments, "--hardware", "h100")
        assert result.exit_code == 1, arguments
        assert message in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_rounds_optimisers_and_a_falling_k_are_counted():
    plain = planned(*NUMBERS, "--width", "16384", "--k", "8", "--hardware", "h100")
    pursuit = ("--fit", "orthogonal_matching_pursuit", "--optimizer", "muon", "--initial-k", "32")
    found = planned(*NUMBERS, "--width", "16384", "--k", "8", *pursuit, "--hardware", "h100")
    assert (found["optimizer"], found["initial_k"]) == ("muon", 32)
    # k is 8 + 24 * 0.1 / 2 on average, and the last round needs no product.
    products = (found["flops"]["rest"] + found["flops"]["encoder"]) / plain["flops"]["encoder"]
    assert products > 9.2
    assert found["memory"]["moments"] < plain["memory"]["moments"]
    many = planned(*LARGE, *pursuit[2:4], "--hardware", "h200", "--within", "720")
    assert many["shards"] == 1


def test_a_falling_k_of_a_recipe_without_one_is_refused():
    result = run(*NUMBERS, "--fit", "relu", "--initial-k", "32", "--hardware", "h100")
    assert result.exit_code == 1
    assert "initial_k must be None for" in result.stderr
