"""The league table, its overview, what was known before, and every testbed."""

import math
from collections import Counter

from modelassay.core.references import REFERENCES, bibliography
from modelassay.report.axes import number
from modelassay.report.league_parts import (
    Exhibit,
    HeatCell,
    HeatMap,
    KnownRow,
    KnownTable,
    OwnScores,
    StandingGroup,
    StandingRow,
    Standings,
)
from modelassay.report.parts import Code, Definition, Definitions, Paragraph, Table
from modelassay.testbeds.league import League, TestbedEntry
from modelassay.testbeds.scores import FOUND, MISSED
from modelassay.testbeds.standing import Mean, Standing

_FOUND = {
    "model": "those of the model",
    "activations": "those of the activations",
    "both": "both",
    "partly": "parts",
    "neither": "neither",
}


def anchor_of(testbed: str) -> str:
    """Where a testbed stands on the page."""
    return f"testbed-{testbed.replace('.', '-').replace(' ', '-')}"


def headline(league: League) -> Paragraph:
    """How often a method found the model's features, in one sentence."""
    # By arm, not by testbed: in some arms the features of the activations are the model's.
    counts = Counter(row.found for row in league.rows)
    return Paragraph(
        role="headline",
        text=f"In {counts['model']} of {len(league.rows)} trials a method finds the features of "
        f"the model alone, in {counts['activations']} those of the activations alone.",
    )


def overview(league: League) -> HeatMap:
    """V of all methods on all testbeds as colours."""
    return HeatMap(
        title="Whose features were found",
        rows=tuple(method.title for method in league.methods),
        columns=tuple((t.name, anchor_of(t.name)) for t in league.testbeds),
        cells=tuple(
            tuple(_cell(league.standing(t.name, m.name)) for t in league.testbeds)
            for m in league.methods
        ),
        caption="V, averaged over arms and constructions: 1 is the model's truth, 0 the "
        "activations'. The paler a cell, the less of either truth was found; a dash means that "
        f"neither match reached {MISSED}, and × that the method could not be run.",
    )


def _cell(standing: Standing | None) -> HeatCell | None:
    if standing is None:
        return None
    model, activations = standing.match_model.value, standing.match_activations.value
    return HeatCell(
        text="–" if math.isnan(standing.v.value) else f"{standing.v.value:.2f}",
        v=0.5 if math.isnan(standing.v.value) else standing.v.value,
        strength=max(model, activations),
        tip=f"{standing.testbed}, {standing.method}: found {_FOUND[standing.found]}\n"
        f"V {shown(standing.v)}\nm̃ of the model {shown(standing.match_model)}\n"
        f"m̃ of the activations {shown(standing.match_activations)}\n"
        f"PAD~ {shown(standing.pad_beyond_chance)}",
    )


def shown(mean: Mean) -> str:
    """A mean with its interval."""
    if math.isnan(mean.low):
        return number(mean.value, 2)
    return f"{number(mean.value, 2)} [{number(mean.low, 2)}, {number(mean.high, 2)}]"


def how_to_read(league: League) -> Paragraph:
    """What the numbers are about."""
    return Paragraph(
        title="What this says.",
        text="Each testbed is a construction with two known truths: features that show in the "
        "activations, and features that the rest of the model reads. Its arms are models whose "
        "activations are the same bit for bit, and whose readers differ. A method that sees "
        "activations alone gives the same answer in every arm, so that it cannot tell them apart "
        "(PAD~ is 0 by construction, whatever it finds); it was fitted once and scored in every "
        "arm. A trial is one method in one arm of one construction. "
        f"Intervals are over {len(league.seeds)} constructions.",
    )


def standings(league: League) -> Standings:
    """The league table."""
    return Standings(
        title="League",
        groups=tuple(_group(league, entry) for entry in league.testbeds),
        caption="Means over arms and constructions with 95 % intervals over constructions "
        f"(Student's t{', none with a single construction' if len(league.seeds) < 2 else ''}). "
        f"A truth counts as found above {FOUND} and as missed below {MISSED}. The dot is hollow "
        "where neither truth was found to a fifth: its place then says little. “found” is by the "
        "mean matches; the arms one by one are under Testbeds. † marks methods that see the "
        "model. Seconds are for one construction, all arms.",
    )


def _group(league: League, entry: TestbedEntry) -> StandingGroup:
    titles = {method.name: method for method in league.methods}
    found = [league.standing(entry.name, method.name) for method in league.methods]
    return StandingGroup(
        name=entry.name,
        title=entry.title,
        anchor=anchor_of(entry.name),
        arms=league.arms(entry.name),
        rows=tuple(
            StandingRow(
                method=titles[s.method].title,
                sees_model=titles[s.method].sees == "model",
                found=s.found,
                v=s.v,
                match_model=s.match_model,
                match_activations=s.match_activations,
                s_graph=s.s_graph,
                pad=s.pad_beyond_chance,
                seconds=s.seconds,
            )
            for s in found
            if s is not None
        ),
        failures=tuple(
            f"{failure.what} (seed {failure.seed}): {failure.reason}"
            for failure in league.failures
            if failure.testbed == entry.name
        ),
    )


def known_numbers(league: League) -> KnownTable:
    """All known numbers beside what was measured."""
    rows = tuple(
        KnownRow(
            testbed=testbed,
            name=known.name,
            expected=known.expected,
            tolerance=known.tolerance,
            measured=known.measured,
            source=known.source,
            reproduced=known.reproduced,
        )
        for testbed, numbers in league.known.items()
        for known in numbers
    )
    count = sum(row.reproduced for row in rows)
    return KnownTable(
        title="Known numbers",
        rows=rows,
        caption=f"{count} of {len(rows)} reproduced: the measured value lies within the stated "
        f"tolerance. Measured here on the first construction (seed {league.seeds[0]}).",
    )


def exhibit(league: League, entry: TestbedEntry) -> Exhibit:
    """One testbed, with its pictures."""
    arms = league.arms(entry.name)
    found = [(method.title, league.standing(entry.name, method.name)) for method in league.methods]
    reached = [(title, standing) for title, standing in found if standing is not None]
    columns = tuple(dict.fromkeys(name for _, standing in reached for name in standing.own))
    return Exhibit(
        anchor=anchor_of(entry.name),
        title=f"{entry.name} · {entry.title}",
        claim=entry.claim,
        note=f"Arms: {', '.join(arms)}." if arms else "It could not be run.",
        drawings=league.drawings.get(entry.name, ()),
        own=OwnScores(
            columns=columns,
            rows=tuple(
                (title, tuple(standing.own.get(name) for name in columns))
                for title, standing in reached
            ),
        ),
        arms=_arm_rows(league, entry.name),
    )


def _arm_rows(league: League, testbed: str) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            row.arm,
            row.method,
            str(row.seed),
            str(row.fit),
            row.found,
            *(
                number(value, 3)
                for value in (row.v, row.match_model, row.match_activations, row.s_graph, row.pad)
            ),
        )
        for row in league.rows
        if row.testbed == testbed
    )


def definitions(league: League) -> Definitions:
    """The scores with their formulas."""
    return Definitions(
        title="The scores",
        entries=(
            Definition(
                term="Match(T)",
                text="Mean over the features of a truth T of their similarity to a latent, in the "
                "best assignment one to one. The similarity is |Pearson correlation| on inputs "
                "where the data's own dependencies are broken, or |cosine| where a testbed is "
                "about directions.",
            ),
            Definition(
                term="m̃ of a truth",
                text="clip((Match(T) − null) / (1 − null), 0, 1), where the null is the match of "
                "random dictionaries of equal width and sparsity, isotropic or with the "
                "activations' covariance, whichever match more.",
            ),
            Definition(
                term="V",
                text="m̃_M / (m̃_M + m̃_A): 1 is the model's truth, 0 the activations'. Not defined "
                "where nothing is found; such rows are left out of its mean.",
            ),
            Definition(
                term="S_graph",
                text="Mean over the model's features of 1 / N_eff, the effective number of latents "
                "that feed one: 1 is one latent per mechanism.",
            ),
            Definition(
                term="PAD~",
                text="How often a decomposition that was made in an arm is nearer to that arm's "
                "model truth than to the other arms', beyond chance: (PAD − 1/K) / (1 − 1/K) for K "
                "arms. 1 is always, 0 is chance.",
            ),
            Definition(
                term="Interval",
                text="95 %, Student's t over the means of the constructions, clipped to what the "
                "score can be. It is about other constructions of the same testbed"
                + (
                    "; the spread between fits is in league.json as between_fits."
                    if league.fits > 1
                    else "; each method was fitted once to each."
                ),
            ),
        ),
    )


def provenance(league: League) -> Table:
    """All that one needs to make this league again."""
    facts = league.provenance
    rows = [
        ("testbeds", ", ".join(entry.name for entry in league.testbeds)),
        ("methods", ", ".join(method.name for method in league.methods)),
        ("seeds of the constructions", ", ".join(map(str, league.seeds))),
        ("fits to each construction", str(league.fits)),
        *((name, str(value)) for name, value in facts.facts.items() if value is not None),
        ("created", facts.created),
        *((f"{name} (version)", version) for name, version in facts.versions.items()),
    ]
    return Table(title="Provenance", columns=("fact", "value"), rows=tuple(rows), caption="")


def references(league: League) -> Code:
    """BibTeX of the testbeds' sources."""
    keys = {key for entry in league.testbeds for key in entry.references}
    known = (keys | {"chughtai2025"}) & set(REFERENCES)
    return Code(title="References (BibTeX)", text=bibliography(known))
