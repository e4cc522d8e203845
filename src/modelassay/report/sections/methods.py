"""Definitions, thresholds, limits, references and provenance."""

from modelassay.audit.result import Audit
from modelassay.core.references import REFERENCES, bibliography
from modelassay.evidence.evidence import Evidence
from modelassay.report.axes import tick_label
from modelassay.report.parts import Code, Definition, Definitions, Table
from modelassay.report.sections.evidence import threshold_of
from modelassay.report.wording import QUESTIONS, VERDICT_CLASSES

_BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


def how_to_read(audit: Audit) -> Definitions:
    """The words that the rest of the report uses."""
    verdicts = tuple(
        Definition(term=f"Verdict: {c.title}", text=c.meaning) for c in VERDICT_CLASSES
    )
    return Definitions(
        title="How to read this",
        entries=(
            *verdicts,
            Definition(
                term="Held-out",
                text="Documents were split before anything was fitted, and every number here was "
                "measured on documents that nothing fitted here has seen. A dictionary that was "
                "fitted elsewhere may have seen them.",
            ),
            Definition(
                term="Interval",
                text="95 % bootstrap interval over documents, not over tokens, because the tokens "
                "of one document are not independent. Where it is over something else, the "
                "definition below says so.",
            ),
            Definition(
                term="Null",
                text="What the same measurement gives where there is nothing to find. Its "
                "definition differs by evidence and is named beside each.",
            ),
            Definition(
                term="p and q",
                text="p is the probability of so strong an effect under the null; q corrects it "
                f"for having asked of all {audit.width:,} latents (Benjamini–Hochberg).",
            ),
        ),
    )


def latent_evidence(audit: Audit) -> Definitions:
    """What each latent-level evidence means."""
    return Definitions(
        title="Evidence per latent", entries=tuple(map(_definition, audit.latent_evidence))
    )


def reconstruction_evidence(audit: Audit) -> Definitions:
    """What each decomposition-level evidence means."""
    unique = {e.name: e for row in reversed(audit.reconstruction) for e in reversed(row.evidence)}
    return Definitions(
        title="Evidence per dictionary", entries=tuple(map(_definition, reversed(unique.values())))
    )


def _definition(evidence: Evidence) -> Definition:
    notes = (
        f"null: {evidence.null_description.rstrip('.')}" if evidence.null_description else "",
        f"unit: {evidence.unit}" if evidence.unit else "",
        _BETTER[evidence.better],
        f"references: {', '.join(evidence.references)}" if evidence.references else "",
    )
    return Definition(
        term=evidence.title, text=evidence.definition, notes=tuple(n for n in notes if n)
    )


def rule(audit: Audit) -> Table:
    """How evidence becomes a verdict."""
    rows: list[tuple[str, ...]] = []
    for question in QUESTIONS:
        evidence = audit.evidence(question.evidence[0])
        threshold = threshold_of(audit, evidence.name)
        value = "its threshold" if threshold is None else tick_label(threshold)
        yes, no = ("below", "above") if evidence.better == "lower" else ("above", "below")
        also = " and q passes its threshold" if evidence.q_value is not None else ""
        rows.append(
            (
                question.title.lower(),
                evidence.title,
                f"the whole interval is {yes} {value}{also}",
                f"the whole interval is {no} {value}{also}",
            )
        )
    return Table(
        title="The verdict rule",
        columns=("question", "evidence", "yes, if", "no, if"),
        rows=tuple(rows),
        caption="Any other answer is unclear. Then, in this order: a latent that never fires is "
        "dead; one that fires too rarely for a claim is undetermined; one with four yeses is of "
        "the model; one whose read is no, or whose written and learned are both no without a yes "
        "for read, is of the activations only; all others are undetermined.",
    )


def thresholds(audit: Audit) -> Table:
    """Every number that a verdict depends on."""
    return Table(
        title="Thresholds and their reasons",
        columns=("threshold", "value", "reason"),
        rows=tuple((t.name, tick_label(t.value), t.reason) for t in audit.thresholds),
        caption="Nothing else enters a verdict.",
    )


def limits(audit: Audit) -> Definitions:
    """What the report does not show."""
    return Definitions(
        title="Limits",
        entries=(
            Definition(
                term="One corpus",
                text="Written, read and learned are measured on this corpus. A latent that is "
                "idle here may be used elsewhere; a latent that is read here may be read for a "
                "reason that only this text has.",
            ),
            Definition(
                term="One reader",
                text=f"Read means the output, and the layers after {audit.site}, on the tokens "
                "that follow soon. Effects that later layers repair, or that come much later, "
                "look smaller than they are.",
            ),
            Definition(
                term="Not a theory of units",
                text="A latent can be written, read, learned and stable and still be one slice "
                "of a larger feature, or several features in one. The verdict says that the "
                "network has it, not that the network thinks in it.",
            ),
            Definition(
                term="Undetermined is an answer",
                text="It means that this audit cannot tell. Do not count it for either side.",
            ),
            Definition(
                term="Concepts are hints",
                text="Concept matches, examples and promoted tokens help to understand a latent. "
                "None of them enters its verdict.",
            ),
        ),
    )


def references(audit: Audit) -> Code:
    """BibTeX of everything that was used."""
    rows = (e for row in audit.reconstruction for e in row.evidence)
    keys = {key for e in (*audit.latent_evidence, *rows) for key in e.references}
    known = (keys | {"chughtai2025"}) & set(REFERENCES)
    unknown = "".join(f"\n\n% {key}: not known to this version" for key in sorted(keys - known))
    return Code(title="References (BibTeX)", text=bibliography(known) + unknown)


def provenance(audit: Audit) -> Table:
    """All that one needs to make this report again."""
    facts = audit.provenance
    rows = [
        ("subject", audit.subject),
        ("site", audit.site),
        ("dictionary", audit.dictionary),
        *((key.replace("_", " "), _shown(value)) for key, value in facts.facts.items()),
        ("seed", str(facts.seed)),
        ("device", facts.device),
        ("created", facts.created),
        *((f"{name} (version)", version) for name, version in facts.versions.items()),
    ]
    return Table(title="Provenance", columns=("fact", "value"), rows=tuple(rows), caption="")


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
