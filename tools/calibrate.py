"""Calibrate the audit where the truth is known: `python -m tools.calibrate`.

Plants features into the bundled model (several seeds), audits dictionaries of it, runs the
evidence on the testbeds, and writes `src/modelassay/audit/calibration.json`. Finished parts stay
in the work folder, and a second call goes on from them.

Seeds of `--setting` may be looked at and thresholds chosen on them; those of `--reporting` may not.
"""

import argparse
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelassay.audit.calibration import PATH
from modelassay.audit.planted_trials import planted_trials
from modelassay.audit.run import AuditConfig, contexts_of
from modelassay.audit.settings import AuditSettings
from modelassay.audit.summarise import best_cut, calibration_of
from modelassay.audit.testbed_trials import testbed_trials
from modelassay.audit.trials import Trial
from modelassay.core.files import read_json, write_json
from modelassay.core.progress import SILENT, BarProgress
from modelassay.core.provenance import Provenance
from modelassay.decompositions.recipes import TopK
from modelassay.subjects.load import load_subject
from modelassay.testbeds.catalogue import TESTBEDS
from modelassay.testbeds.methods import METHODS
from modelassay.testbeds.registry import find
from modelassay.testbeds.workers import Send, run_jobs

_METHODS = ("neurons", "pca", "topk", "lib")


@dataclass(frozen=True, kw_only=True)
class Job:
    """One planted pair, or one testbed."""

    testbed: str
    """Empty for a planted pair."""
    seed: int
    tokens: int
    folder: str

    @property
    def path(self) -> Path:
        """Where its trials are kept."""
        return Path(self.folder) / f"{self.testbed or 'planted'}.{self.seed}.json"


def work(job: Job, send: Send) -> None:
    """Do one job and keep its trials."""
    if job.testbed:
        testbed = TESTBEDS[job.testbed].build(job.seed)
        methods = [METHODS[name] for name in _METHODS]
        trials = testbed_trials(testbed, methods, seed=job.seed, progress=SILENT)
        write_json(job.path, {"trials": [asdict(t) for t in trials], "features": 0, "found": 0})
    else:
        subject = load_subject("bundled")
        config = AuditConfig(tokens=job.tokens, seed=job.seed)
        found = planted_trials(
            subject,
            contexts_of(config, subject),
            TopK(width=1024, k=16),
            seed=job.seed,
            settings=AuditSettings(),
            progress=SILENT,
        )
        content = {"features": found.n_features, "found": found.n_found}
        write_json(job.path, {"trials": [asdict(t) for t in found.trials], **content})
    send(job)


def main() -> None:
    """Run what is missing, then summarise."""
    options = _options()
    folder = str(options.work)
    planted = {
        kind: [Job(testbed="", seed=s, tokens=options.tokens, folder=folder) for s in seeds]
        for kind, seeds in (("setting", options.setting), ("reporting", options.reporting))
    }
    names = [kind.name for kind in find(options.testbeds, TESTBEDS)] if options.testbeds else []
    small = [
        Job(testbed=name, seed=seed, tokens=0, folder=folder)
        for name in names
        for seed in options.testbed_seeds
    ]
    jobs = [*planted["setting"], *planted["reporting"], *small]
    missing = [job for job in jobs if not job.path.is_file()]
    with BarProgress().task("Calibrating", total=len(missing), unit="jobs") as task:
        run_jobs(work, missing, processes=options.jobs, on_message=lambda _job: task.advance(1))
    groups = {kind: [_read(job) for job in of_kind] for kind, of_kind in planted.items()}
    calibration = calibration_of(
        setting=_trials(groups["setting"]),
        reporting=_trials(groups["reporting"]),
        testbeds=_trials([_read(job) for job in small]),
        features={k: sum(2 * c["features"] for c in contents) for k, contents in groups.items()},
        facts={
            "subject": "bundled",
            "dictionary": "TopK 1024 (k=16)",
            "tokens": options.tokens,
            "testbeds": names,
            "testbed_seeds": options.testbed_seeds,
            "methods": list(_METHODS),
            **asdict(AuditSettings()),
            "versions": Provenance.collect(seed=0, device="cpu").versions,
        },
    )
    low, high, accuracy = best_cut(_trials(groups["setting"]), "read")
    print(f"best cut of read on the setting seeds: {low:.3f} to {high:.3f} ({accuracy:.3f})")
    for name, verdict in (("setting", calibration.setting_verdict), ("rep.", calibration.verdict)):
        print(f"{name}: AUROC {verdict.auroc.value:.3f}, undetermined {verdict.undetermined:.3f}")
    for each in calibration.evidence:
        shown = ", ".join(
            f"{place} {a.value:.3f} ({a.low:.3f} to {a.high:.3f})"
            for place, a in each.auroc.items()
        )
        print(f"{each.title}: {shown}")
    write_json(options.out, calibration.as_json())


def _read(job: Job) -> dict[str, Any]:
    return read_json(job.path)


def _trials(contents: list[dict[str, Any]]) -> list[Trial]:
    return [
        Trial(**entry | {"values": {k: _number(v) for k, v in entry["values"].items()}})
        for content in contents
        for entry in content["trials"]
    ]


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    numbers = {"type": lambda text: [int(n) for n in text.split(",") if n]}
    parser.add_argument("--setting", default=[0, 1, 2], **numbers)
    parser.add_argument("--reporting", default=[100, 101, 102, 103], **numbers)
    parser.add_argument(
        "--testbeds", default=["all"], type=lambda text: text.split(",") if text else []
    )
    parser.add_argument("--testbed-seeds", default=[100, 101], **numbers)
    parser.add_argument("--tokens", default=300_000, type=int)
    parser.add_argument("--jobs", default=2, type=int)
    parser.add_argument("--work", default=Path("out/calibration"), type=Path)
    parser.add_argument("--out", default=PATH, type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
