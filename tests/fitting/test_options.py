import json
from typing import Any

import pytest

from modelassay.core.errors import ValueRangeError
from modelassay.fitting.options import TrainingOptions


def test_options_are_plain_json_and_plain_facts():
    options = TrainingOptions(optimizer="muon", initial_k=64)
    content = json.loads(json.dumps(options.as_json()))
    assert content["optimizer"] == "muon"
    assert content["initial_k"] == 64
    facts = options.facts()
    assert facts.keys() == content.keys()
    assert all(value is None or isinstance(value, str | int | float) for value in facts.values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "adamw"}, "optimizer must be one of adam, signum, muon; got 'adamw'"),
        ({"schedule": "restarts"}, "schedule must be one of linear, cosine, constant"),
        ({"precision": "fp8"}, "precision must be one of float32, bfloat16, auto"),
        ({"normalisation": "layer"}, "normalisation must be one of scale, whitening"),
        ({"decay_share": 1.5}, r"decay_share must be between 0 and 1; got 1\.5"),
        ({"k_share": -0.1}, "k_share must be between 0 and 1"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0; got -1"),
        ({"initial_k": 0}, "initial_k must be at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_by_name(wrong: dict[str, Any], message: str):
    # Set afterwards: while tests run, wrong names do not get past the constructor's types.
    options = TrainingOptions()
    for name, value in wrong.items():
        object.__setattr__(options, name, value)
    with pytest.raises(ValueRangeError, match=message):
        options.__post_init__()
