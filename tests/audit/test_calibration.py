import json
import math
from pathlib import Path

import pytest
import torch

from modelassay.audit.calibration import (
    PLANTED,
    TESTBEDS,
    read_calibration,
    stored_calibration,
)
from modelassay.audit.summarise import best_cut, calibration_of
from modelassay.audit.trials import Trial, auroc_of, auroc_of_verdict
from modelassay.core.errors import CorruptFileError
from modelassay.core.files import write_json


def trial(feature: int, arm: int, *, seed: int = 0, **changes: object) -> Trial:
    """Feature 0, 2, 4, … are read in arm 0, the others in arm 1."""
    of_model = feature % 2 == arm
    fields = {
        "testbed": "planted",
        "seed": seed,
        "arm": f"arm {arm}",
        "latent": feature,
        "cluster": f"{seed}/{feature}",
        "kind": "common" if of_model else "ignored",
        "of_model": of_model,
        "values": {
            "read": 1.0 + feature if of_model else -1.0 - feature,
            "written": float(feature),
            "null_twin_match": 0.1 * feature,
        },
        "verdict": "model" if of_model else "activations",
    }
    return Trial(**(fields | changes))  # pyright: ignore[reportArgumentType]


def trials(seed: int = 0, features: int = 12) -> list[Trial]:
    return [trial(feature, arm, seed=seed) for feature in range(features) for arm in (0, 1)]


def test_what_sees_only_activations_is_exactly_at_chance_in_paired_arms() -> None:
    found = auroc_of(trials(), "written", lower_is_better=False, seed=0)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_what_looks_past_them_is_not() -> None:
    assert auroc_of(trials(), "read", lower_is_better=False, seed=0).value == 1
    assert auroc_of(trials(), "read", lower_is_better=True, seed=0).value == 0


def test_undetermined_stands_between_the_verdicts() -> None:
    assert auroc_of_verdict(trials(), seed=0).value == 1
    changed = [trial(0, 0, verdict="undetermined"), trial(1, 0)]
    assert auroc_of_verdict(changed, seed=0).value == 1
    assert (
        auroc_of_verdict(
            [trial(0, 0, verdict="undetermined"), trial(1, 0, verdict="undetermined")], seed=0
        ).value
        == 0.5
    )


def test_a_calibration_round_trips(tmp_path: Path) -> None:
    few = [*trials(100), trial(0, 0, seed=100, verdict="undetermined", kind="rare")]
    made = calibration_of(
        setting=trials(0),
        reporting=few,
        testbeds=[trial(f, 0, verdict="", values={"read": float(f % 2 == 0)}) for f in range(8)],
        features={"setting": 24, "reporting": 50},
        facts={"tokens": 1},
    )
    path = tmp_path / "calibration.json"
    write_json(path, made.as_json())
    assert read_calibration(path).verdict == made.verdict
    read = made.of("read")
    assert read is not None
    assert read.auroc[PLANTED].value == 1
    assert read.auroc[TESTBEDS].value == 1
    written = made.of("written")
    assert written is not None
    assert list(written.auroc) == [PLANTED]  # has no meaning on the testbeds
    assert made.verdict.undetermined == pytest.approx(1 / 25)
    assert made.verdict.found == pytest.approx(25 / 50)
    assert made.verdict.shares["rare"]["undetermined"] == 1
    assert made.setting_seeds == (0,)
    assert made.reporting_seeds == (100,)
    assert made.of("nonsense") is None


def test_the_best_cut_separates_what_can_be_separated() -> None:
    low, high, accuracy = best_cut(trials(), "read")
    assert (low, high, accuracy) == (-1.0, 1.0, 1.0)
    mixed = [
        trial(f, 0, values={"read": v})
        for f, v in enumerate([2.0, 1.0, 3.0, -1.0, 0.5, 0.0, math.nan])
    ]
    values = torch.tensor([2.0, 1.0, 3.0, -1.0, 0.5, 0.0])
    of_model = torch.arange(6) % 2 == 0
    by_hand = max(
        float(((values > c)[of_model].float().mean() + (values <= c)[~of_model].float().mean()) / 2)
        for c in values.tolist()
    )
    assert best_cut(mixed, "read")[2] == pytest.approx(by_hand)


def test_the_packages_calibration_is_whole_and_honest() -> None:
    stored = stored_calibration()
    assert not set(stored.setting_seeds) & set(stored.reporting_seeds)
    for name in ("written", "stable", "null_twin_match", "firing_rate", "explained_variance"):
        found = stored.of(name)
        assert found is not None
        # In paired arms with identical activations these cannot tell anything, by theorem.
        assert found.auroc[PLANTED].value == pytest.approx(0.5)


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"schema_version": 99}))
    with pytest.raises(CorruptFileError, match="schema_version 1; got 99"):
        read_calibration(path)
    path.write_text(json.dumps({"schema_version": 1}))
    with pytest.raises(CorruptFileError, match="must be a whole calibration"):
        read_calibration(path)
