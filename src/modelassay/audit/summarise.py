"""From trials to a calibration: AUROCs, and what the verdict said."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelassay.audit.calibration import (
    PLANTED,
    TESTBEDS,
    Calibration,
    EvidenceCalibration,
    VerdictCalibration,
)
from modelassay.audit.parts import verdict_shares
from modelassay.audit.trials import Trial, auroc_of, auroc_of_verdict

_DRAWS = 0  # seed of the bootstraps


@dataclass(frozen=True, kw_only=True, slots=True)
class _Quantity:
    name: str
    title: str
    lower_is_better: bool = False
    in_audit: bool = True


QUANTITIES = (
    _Quantity(name="read", title="Read by the rest of the network"),
    _Quantity(name="read_isotropic", title="Read, against isotropic directions"),
    _Quantity(name="read_next_layer", title="Read by the next block"),
    _Quantity(name="read_effect", title="Effect of resampling its value"),
    _Quantity(name="visible_variance", title="Variance that the output sees"),
    _Quantity(name="written", title="Computed rather than given by the tokens"),
    _Quantity(name="null_twin_match", title="Best match in null twins", lower_is_better=True),
    _Quantity(name="stable", title="Found again with a second seed (values)"),
    _Quantity(name="stable_geometry", title="Found again with a second seed (directions)"),
    _Quantity(name="firing_rate", title="Firing rate (a latent's part in L0)"),
    _Quantity(name="mean_activation", title="Mean value while firing"),
    _Quantity(name="explained_variance", title="Explained variance", in_audit=False),
    _Quantity(name="ce_change", title="Cross-entropy recovered", in_audit=False),
    _Quantity(name="sparse_probing", title="Sparse probing accuracy", in_audit=False),
    _Quantity(name="detection", title="Detection score of its concept label", in_audit=False),
)
"""What is calibrated: evidence of an audit, then a latent's part in the field's usual metrics."""


def calibration_of(
    *,
    setting: Sequence[Trial],
    reporting: Sequence[Trial],
    testbeds: Sequence[Trial],
    features: dict[str, int],
    facts: dict[str, Any],
) -> Calibration:
    """Summarise trials.

    Args:
        setting: on planted models, on whose seeds thresholds were set.
        reporting: on planted models of other seeds.
        testbeds: on small models of any input.
        features: "setting" and "reporting" -> features that were planted, in both arms together.
        facts: about the run.
    """
    return Calibration(
        evidence=tuple(_evidence(quantity, reporting, testbeds) for quantity in QUANTITIES),
        verdict=_verdict(reporting, features["reporting"]),
        setting_verdict=_verdict(setting, features["setting"]),
        setting_seeds=tuple(sorted({trial.seed for trial in setting})),
        reporting_seeds=tuple(sorted({trial.seed for trial in reporting})),
        facts=facts,
    )


def _evidence(
    quantity: _Quantity, planted: Sequence[Trial], testbeds: Sequence[Trial]
) -> EvidenceCalibration:
    places = {PLANTED: planted, TESTBEDS: testbeds}
    return EvidenceCalibration(
        name=quantity.name,
        title=quantity.title,
        lower_is_better=quantity.lower_is_better,
        in_audit=quantity.in_audit,
        auroc={
            place: auroc_of(
                trials, quantity.name, lower_is_better=quantity.lower_is_better, seed=_DRAWS
            )
            for place, trials in places.items()
            # What has no meaning somewhere is absent there, not at chance.
            if any(math.isfinite(t.values.get(quantity.name, math.nan)) for t in trials)
        },
    )


def _verdict(trials: Sequence[Trial], n_features: int) -> VerdictCalibration:
    kinds = sorted({trial.kind for trial in trials})
    verdicts = {k: tuple(t.verdict for t in trials if t.kind == k) for k in kinds}
    undetermined = Counter(trial.verdict for trial in trials)["undetermined"]
    return VerdictCalibration(
        auroc=auroc_of_verdict(trials, seed=_DRAWS),
        undetermined=undetermined / len(trials),
        shares={kind: verdict_shares(given) for kind, given in verdicts.items()},
        counts={kind: len(given) for kind, given in verdicts.items()},
        found=len(trials) / n_features,
    )


def best_cut(trials: Sequence[Trial], name: str) -> tuple[float, float, float]:
    """The cuts of a quantity with the largest balanced accuracy: lowest, highest, accuracy.

    Balanced accuracy is ``(P(v > cut | model) + P(v <= cut | activations)) / 2``; it is the same
    for all cuts between two neighbouring values.
    """
    pairs = [(t.values.get(name, math.nan), t.of_model) for t in trials]
    values = torch.tensor([v for v, _ in pairs if math.isfinite(v)], dtype=torch.float64)
    of_model = torch.tensor([m for v, m in pairs if math.isfinite(v)])
    order = values.argsort()
    values, of_model = values[order], of_model[order]
    kept = 1 - of_model.double().cumsum(0) / of_model.sum()
    dropped = (~of_model).double().cumsum(0) / (~of_model).sum()
    accuracy = (kept + dropped) / 2
    best = int(accuracy.argmax())
    last = best
    while last + 1 < len(values) and float(accuracy[last + 1]) >= float(accuracy[best]):
        last += 1
    upper = float(values[last + 1]) if last + 1 < len(values) else math.inf
    return float(values[best]), upper, float(accuracy[best])
