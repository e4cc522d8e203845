"""Audit -> page: which parts a report has, and in which order."""

from collections.abc import Callable

from modelassay.audit.result import Audit
from modelassay.report.degrade import or_broken
from modelassay.report.observation_parts import ObservationList
from modelassay.report.parts import Page, Part, Section
from modelassay.report.sections import (
    calibration,
    evidence,
    latents,
    methods,
    reconstruction,
    variance,
    verdicts,
)

Maker = Callable[[Audit], Part]

_PLAN: tuple[tuple[str, str, tuple[Maker, ...]], ...] = (
    (
        "verdict",
        "Verdict",
        (
            verdicts.headline,
            verdicts.verdict_shares,
            verdicts.summary,
            verdicts.what_would_change_it,
            verdicts.baselines,
        ),
    ),
    (
        "reconstruction",
        "Reconstruction",
        (reconstruction.how_to_read, reconstruction.comparison, reconstruction.losses),
    ),
    ("variance", "Variance", (variance.how_to_read, variance.scatter)),
    ("evidence", "Evidence", (evidence.answers, evidence.distributions)),
    (
        "calibration",
        "Calibration",
        (
            calibration.how_to_read,
            calibration.worth_of_verdicts,
            calibration.worth_of_scores,
        ),
    ),
    ("latents", "Latents", (latents.catalogue,)),
    (
        "methods",
        "Methods",
        (
            methods.how_to_read,
            methods.rule,
            methods.thresholds,
            methods.latent_evidence,
            methods.reconstruction_evidence,
            methods.limits,
            methods.provenance,
            methods.references,
        ),
    ),
)


def build(audit: Audit, observations: ObservationList | None = None) -> Page:
    """The page of an audit. A part that cannot be made is replaced by one that says so."""
    sections = [
        Section(anchor=anchor, title=title, parts=tuple(_made(maker, audit) for maker in makers))
        for anchor, title, makers in _PLAN
    ]
    if observations is not None:
        joined = Section(anchor="observations", title="Observations", parts=(observations,))
        sections.insert(-1, joined)  # before the methods
    versions, seed = audit.provenance.versions, audit.provenance.seed
    return Page(
        title=f"{audit.subject} · {audit.site}",
        subtitle=audit.dictionary,
        sections=tuple(sections),
        footer=f"modelassay {versions.get('modelassay', '')} · {audit.subject} · {audit.site} · "
        f"{audit.dictionary} · seed {seed} · {audit.provenance.created}",
    )


def _made(maker: Maker, audit: Audit) -> Part:
    return or_broken(maker.__name__.replace("_", " ").capitalize(), lambda: maker(audit))
