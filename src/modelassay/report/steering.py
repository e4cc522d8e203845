"""The page of steering: behaviour and cost over strengths, tokens, and what the model writes."""

from collections.abc import Sequence

import torch

from modelassay.core.provenance import Provenance
from modelassay.observe.steering_sweep import SteeringSweep
from modelassay.report.axes import number
from modelassay.report.intervention_parts import Curve, PromptStrip, StrengthCurves
from modelassay.report.measured import measured
from modelassay.report.page_ending import footer, provenance_table, references
from modelassay.report.parts import (
    Definition,
    Definitions,
    Page,
    Paragraph,
    Section,
    Table,
)
from modelassay.report.report import Report

_MOST_PROMPTS = 12
REFERENCES = ("turner2023", "rimsky2024", "templeton2024", "arditi2024", "marks2023")


def steering_curves(sweep: SteeringSweep) -> StrengthCurves:
    """Behaviour and perplexity of a sweep, ready to draw."""
    indices = range(len(sweep.strengths))
    behaviour = [sweep.behaviour_at(index) for index in indices]
    perplexity = [sweep.perplexity_at(index) for index in indices]
    return StrengthCurves(
        title=f"{sweep.operation}: {sweep.units} at {sweep.site}",
        caption="Grey: the same changes at the same tokens, written in random directions of the "
        "same lengths. Intervals are bootstraps over prompts (left) and documents (right).",
        strengths=sweep.strengths,
        curves=(
            Curve(
                title=sweep.behaviour,
                value=torch.tensor([m.value for m in behaviour]),
                low=torch.tensor([m.low for m in behaviour]),
                high=torch.tensor([m.high for m in behaviour]),
                random=sweep.random_behaviour(),
                baseline=sweep.baseline().value,
            ),
            Curve(
                title="perplexity of held-out text",
                value=torch.tensor([m.value for m in perplexity]),
                low=torch.tensor([m.low for m in perplexity]),
                high=torch.tensor([m.high for m in perplexity]),
                random=sweep.random_perplexity(),
                baseline=sweep.perplexity_at(None).value,
                logarithmic=True,
            ),
        ),
    )


def steering_report(
    subject: str,
    sweep: SteeringSweep,
    provenance: Provenance,
    *,
    continuations: Sequence[tuple[str, str]] = (),
) -> Report:
    """The page of a sweep.

    Args:
        subject: name of the model.
        sweep: what was measured.
        provenance: printed at the foot.
        continuations: strength in words, and what the model writes then.
    """
    parts = (Paragraph(text=steering_summary(sweep)), steering_curves(sweep), _numbers(sweep))
    sections = [
        Section(anchor="sweep", title="Sweep", parts=parts),
        Section(anchor="tokens", title="Tokens", parts=(_prompts(sweep),)),
    ]
    if continuations:
        table = Table(
            title="What the model writes",
            columns=("strength", "continuation of the first prompt"),
            rows=tuple((strength, _visible(text)) for strength, text in continuations),
            caption="The likeliest token each time; ⏎ is the end of a line.",
        )
        sections.append(Section(anchor="text", title="Text", parts=(table,)))
    methods = (_definitions(), provenance_table(provenance), references(REFERENCES))
    sections.append(Section(anchor="methods", title="Methods", parts=methods))
    page = Page(
        title=f"{subject} · steering",
        subtitle=f"{sweep.operation}: {sweep.units} at {sweep.site}",
        sections=tuple(sections),
        footer=footer(provenance, subject),
    )
    return Report(page)


def steering_summary(sweep: SteeringSweep) -> str:
    """What was found, in a line: the behaviour without steering, and where it leaves chance."""
    beyond = [
        f"{strength:g}"
        for strength, outside in zip(sweep.strengths, sweep.beyond_chance(), strict=True)
        if outside
    ]
    n = len(sweep.random)
    told = (
        f"outside those of all {n} random directions at strength {', '.join(beyond)}"
        if beyond
        else f"nowhere outside those of all {n} random directions: no more than chance does"
    )
    return (
        f"The mean {sweep.behaviour} is {measured(sweep.baseline())} without steering; steered, "
        f"it is {told}."
    )


def _numbers(sweep: SteeringSweep) -> Table:
    chance = sweep.random_behaviour()
    return Table(
        title="Numbers",
        columns=("strength", sweep.behaviour, "random directions", "perplexity", "steered / own"),
        rows=tuple(
            (
                f"{strength:g}",
                measured(sweep.behaviour_at(index)),
                f"{number(float(chance[:, index].min()))} to "
                f"{number(float(chance[:, index].max()))}",
                measured(sweep.perplexity_at(index)),
                measured(sweep.cost_at(index)),
            )
            for index, strength in enumerate(sweep.strengths)
        ),
        caption=f"{len(sweep.unsteered)} prompts; {int(sweep.text_tokens.sum()):,} held-out tokens "
        f"in {len(sweep.text_tokens)} documents. 95 % intervals.",
    )


def _prompts(sweep: SteeringSweep) -> PromptStrip:
    shown = sweep.prompts[:_MOST_PROMPTS]
    rest = len(sweep.prompts) - len(shown)
    return PromptStrip(
        title="Steered and read",
        caption="Shaded tokens were steered, underlined ones read."
        + (f" {rest} more prompts are not shown." if rest else ""),
        prompts=shown,
    )


def _visible(text: str) -> str:
    return text.replace("\n", " ⏎ ").strip(" ")


def _definitions() -> Definitions:
    return Definitions(
        title="What the words mean",
        entries=(
            Definition(
                term="behaviour",
                text="The mean over prompts of what was asked for, after the last token.",
            ),
            Definition(
                term="random directions",
                text="The same changes at the same tokens, along directions drawn at random, with "
                "the same lengths. What they do too is no work of these units.",
            ),
            Definition(
                term="steered / own",
                text="Perplexity of held-out text under the same changes, over the model's own: "
                "what steering costs.",
            ),
            Definition(
                term="intervals",
                text="95 % bootstraps over prompts (behaviour) and documents (perplexity); with "
                "fewer than five there are none.",
            ),
        ),
    )
