import csv
import json
from pathlib import Path

import pytest

from modelassay.core.errors import OutputExistsError, ValueRangeError
from modelassay.fitting.logs import FileLog, Measurement, open_logs


def measurement(step: int, name: str = "topk 8") -> Measurement:
    return Measurement(
        dictionary=name,
        step=step,
        tokens=64 * step,
        loss=1 / (3 + step),
        explained_variance=0.5,
        l0=2.0,
        dead_share=0.125,
        learning_rate=1e-3,
    )


def read(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".csv":
        return list(csv.DictReader(path.read_text("utf-8").splitlines()))
    return [
        {name: str(value) for name, value in json.loads(line).items()}
        for line in path.read_text("utf-8").splitlines()
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_every_figure_is_written_in_full_precision(tmp_path: Path, suffix: str):
    path = tmp_path / f"run{suffix}"
    log = FileLog(path)
    log.write([measurement(25), measurement(25, 'a, "b"')])
    log.write([measurement(50)])
    log.close()
    rows = read(path)
    assert [row["step"] for row in rows] == ["25", "25", "50"]
    assert rows[1]["dictionary"] == 'a, "b"'
    assert float(rows[0]["loss"]) == 1 / 28
    assert list(rows[0]) == list(Measurement.__slots__)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_resumed_log_equals_an_uninterrupted_one(tmp_path: Path, suffix: str):
    whole, resumed = tmp_path / f"whole{suffix}", tmp_path / f"resumed{suffix}"
    log = FileLog(whole)
    for step in (25, 50, 75, 100):
        log.write([measurement(step)])
    log.close()
    log = FileLog(resumed)
    for step in (25, 50, 75):
        log.write([measurement(step)])
    log.close()
    with resumed.open("a") as file:  # the kill cuts a line short
        file.write(whole.read_text("utf-8").splitlines()[-1][:12])
    log = FileLog(resumed, keep_until=50)
    for step in (75, 100):
        log.write([measurement(step)])
    log.close()
    assert resumed.read_bytes() == whole.read_bytes()


def test_folder_gets_both_formats(tmp_path: Path):
    for log in open_logs(tmp_path / "logs"):
        log.write([measurement(1)])
        log.close()
    assert read(tmp_path / "logs" / "log.csv") == read(tmp_path / "logs" / "log.jsonl")


def test_existing_log_is_not_overwritten(tmp_path: Path):
    path = tmp_path / "run.csv"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match="which exists"):
        FileLog(path)
    assert path.read_text() == "mine"


def test_unknown_format_is_refused(tmp_path: Path):
    with pytest.raises(ValueRangeError, match=r"\.csv or \.jsonl; got 'run\.xlsx'"):
        open_logs(tmp_path / "run.xlsx")
