"""The table of latents and the panel behind each row."""

import torch

from modelassay.audit.result import Audit
from modelassay.evidence.evidence import Evidence
from modelassay.report.parts import Catalogue, EvidenceColumn
from modelassay.report.sections.calibration import note_on
from modelassay.report.sections.evidence import axis_of, threshold_of
from modelassay.report.sections.verdicts import data_of
from modelassay.report.wording import QUESTIONS, VERDICT_CLASSES


def catalogue(audit: Audit) -> Catalogue:
    """Everything known of every latent."""
    return Catalogue(
        title="Latents",
        classes=VERDICT_CLASSES,
        questions=QUESTIONS,
        verdicts=audit.verdicts,
        reasons=audit.reasons,
        answers=audit.answers,
        columns=tuple(_column(audit, evidence) for evidence in audit.latent_evidence),
        details=audit.details,
        vocabulary=audit.vocabulary,
        caption=f"All {audit.width:,} latents. In the small axes the dot is the estimate, the "
        f"line its 95 % interval, the tick its null. {data_of(audit)}",
    )


def _column(audit: Audit, evidence: Evidence) -> EvidenceColumn:
    threshold = threshold_of(audit, evidence.name)
    return EvidenceColumn(
        name=evidence.name,
        title=evidence.title,
        unit=evidence.unit,
        better=evidence.better,
        null_description=evidence.null_description,
        definition=f"{evidence.definition} {note_on(evidence.name)}".rstrip(),
        threshold=threshold,
        axis=axis_of(evidence, threshold),
        value=evidence.value.to(torch.float32).numpy(),
        low=evidence.low.to(torch.float32).numpy(),
        high=evidence.high.to(torch.float32).numpy(),
        null=evidence.null.to(torch.float32).numpy(),
        p_value=None if evidence.p_value is None else evidence.p_value.numpy(),
        q_value=None if evidence.q_value is None else evidence.q_value.numpy(),
        n=evidence.n.numpy(),
    )
