"""How pages end: where they came from, and the papers behind them."""

from collections.abc import Iterable

from modelassay.core.provenance import Provenance
from modelassay.core.references import bibliography
from modelassay.report.parts import Code, Table


def footer(provenance: Provenance, about: str) -> str:
    """Where a page came from, in one line."""
    version = provenance.versions.get("modelassay", "")
    return f"modelassay {version} · {about} · seed {provenance.seed} · {provenance.created}"


def provenance_table(provenance: Provenance) -> Table:
    """Where a page came from, in full."""
    rows = [
        ("seed", str(provenance.seed)),
        ("device", provenance.device),
        ("created", provenance.created),
        *(
            (name.replace("_", " "), _shown(value))
            for name, value in provenance.facts.items()
            if value is not None
        ),
        *((f"{name} (version)", version) for name, version in provenance.versions.items()),
    ]
    return Table(title="Provenance", columns=("fact", "value"), rows=tuple(rows), caption="")


def references(keys: Iterable[str]) -> Code:
    """BibTeX of some papers.

    Raises:
        UnknownNameError: for a key that is no paper's.
    """
    return Code(title="References (BibTeX)", text=bibliography(keys))


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
