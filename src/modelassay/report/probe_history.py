"""The page of a training history: which concepts a model encodes, where, and from which step on."""

from modelassay.core.provenance import Provenance
from modelassay.core.references import bibliography
from modelassay.observe.probes.report import shown
from modelassay.observe.probes.training_history import MEASURES, Measure, TrainingHistory
from modelassay.report.degrade import or_broken
from modelassay.report.history_picture import TITLES, history_picture
from modelassay.report.parts import (
    Code,
    Definition,
    Definitions,
    Page,
    Paragraph,
    Part,
    Section,
    Table,
)
from modelassay.report.picture_parts import PictureWall
from modelassay.report.report import Report
from modelassay.report.superposition import VectorPicture

REFERENCES = ("mcgrath2022", "hewitt2019")
COLUMNS = (
    "concept", "finding", "since step", "best site", "score", "lead", "over token", "over bag",
    "over null twin", "selectivity",
)  # fmt: skip
_WIDTH = 980  # of a picture on the page


def history_report(history: TrainingHistory, provenance: Provenance) -> Report:
    """The page of one history."""
    others: tuple[Measure, ...] = tuple(measure for measure in MEASURES if measure != "lead")
    sections = (
        Section(
            anchor="map",
            title="What, when, where",
            parts=(
                _headline(history),
                or_broken(TITLES["lead"], lambda: _map(history, "lead")),
                or_broken("Concepts", lambda: _table(history)),
            ),
        ),
        Section(
            anchor="controls",
            title="Against each control",
            parts=tuple(_one_of_many(history, measure) for measure in others),
        ),
        Section(
            anchor="methods",
            title="Methods",
            parts=(
                _definitions(history),
                _items(history),
                _provenance(provenance),
                Code(title="References (BibTeX)", text=bibliography(REFERENCES)),
            ),
        ),
    )
    return Report(
        Page(
            title=f"Training history · {history.subject}",
            subtitle=f"{len(history.concepts)} concepts, {len(history.sites)} sites, "
            f"{len(history.steps)} checkpoints",
            sections=sections,
            footer=f"modelassay {provenance.versions.get('modelassay', '')} · {history.subject} · "
            f"seed {provenance.seed} · {provenance.created}",
        )
    )


def rows_of(history: TrainingHistory) -> list[tuple[str, ...]]:
    """The concepts at the last step, in rows of `COLUMNS`."""
    return [
        (
            each.name, each.finding, "–" if each.since is None else str(each.since), each.site,
            shown(each.score), shown(each.lead), shown(each.over_token), shown(each.over_bag),
            shown(each.over_null), shown(each.selectivity),
        )
        for each in history.summaries()
    ]  # fmt: skip


def _headline(history: TrainingHistory) -> Paragraph:
    found = [each.finding for each in history.summaries()]
    text = (
        f"At step {history.steps[-1]}, {found.count('learnt')} of {len(found)} concepts can be "
        "read better than by every control"
    )
    for finding in ("not beyond the null twin", "not beyond the tokens", "not encoded"):
        if found.count(finding):
            text += f"; {found.count(finding)} {finding}"
    return Paragraph(role="headline", text=f"{text}.")


def _one_of_many(history: TrainingHistory, measure: Measure) -> Part:
    return or_broken(TITLES[measure], lambda: _map(history, measure))


def _map(history: TrainingHistory, measure: Measure) -> Part:
    picture = VectorPicture(title="", svg=history_picture(history, measure))
    return PictureWall(title="", pictures=(picture,), caption=_CAPTIONS[measure], width=_WIDTH)


_CAPTIONS: dict[Measure, str] = {
    "lead": "The score of a linear probe less that of the best control at the same site: the "
    "token alone, a bag of the tokens read, the null twin, or chance. Where the null twin is the "
    "column of step 0, that column cannot be above 0.",
    "score": "0 for who knows nothing, 1 for a perfect reader. Scores of a model at step 0 are "
    "what random weights keep of the tokens.",
    "over_token": "A table from the token to its mean in training knows nothing of the context.",
    "over_bag": "A linear probe of the counts of all tokens read so far knows no order.",
    "over_null": "What the architecture does without training.",
    "selectivity": "In the control task each token has a random value: it can only be remembered.",
}


def _table(history: TrainingHistory) -> Table:
    return Table(
        title=f"Concepts at step {history.steps[-1]}",
        columns=COLUMNS,
        rows=tuple(rows_of(history)),
        caption="At the site that folds of the training documents chose. Intervals are 95 %, over "
        "test documents. Since: from this step on, the chosen site's lead is above 0 at every "
        "checkpoint.",
    )


def _items(history: TrainingHistory) -> Table:
    return Table(
        title="Items",
        columns=("concept", "what it is", "kind", "train", "test", "test documents"),
        rows=tuple(
            (
                history.concepts[n], history.descriptions[n],
                "R²" if history.graded[n] else "2 AUROC − 1", str(history.n_train[n]),
                str(history.n_test[n]), str(history.n_test_groups[n]),
            )
            for n in range(len(history.concepts))
        ),
        caption="Random tokens; of what is true or false, as many of either class.",
    )  # fmt: skip


def _definitions(history: TrainingHistory) -> Definitions:
    return Definitions(
        title="What the words mean",
        entries=(
            Definition(
                term="score",
                text="2 AUROC − 1 of a logistic probe, or R² of a ridge regression of graded "
                "concepts, on documents that the probe was not trained on.",
            ),
            Definition(term="null twin", text=f"Here: {history.null}, at the same site."),
            Definition(
                term="learnt",
                text="Score, and leads over null twin, token and bag of tokens all have intervals "
                "above 0. Otherwise the first of these that fails is named: not encoded, not "
                "beyond the null twin, not beyond the tokens.",
            ),
            Definition(
                term="encoded, not used",
                text="A probe says what can be read, not what the model does with it.",
            ),
        ),
    )


def _provenance(provenance: Provenance) -> Table:
    rows = [
        ("seed", str(provenance.seed)),
        ("created", provenance.created),
        *((name, str(value)) for name, value in provenance.facts.items() if value is not None),
        *((f"{name} (version)", version) for name, version in provenance.versions.items()),
    ]
    return Table(title="Provenance", columns=("fact", "value"), rows=tuple(rows), caption="")


def as_text(history: TrainingHistory) -> str:
    """The concepts for a terminal, in aligned columns."""
    rows = [COLUMNS, *rows_of(history)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
