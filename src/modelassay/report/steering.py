"""The page of steering: behaviour and cost over strengths, tokens, and what the model writes."""

from collections.abc import Sequence

import torch

from modelassay.core.provenance import Provenance
from modelassay.observe.steering_sweep import SteeringSweep
from modelassay.report.intervention_parts import Curve, PromptStrip, StrengthCurves
from modelassay.report.parts import Page, Paragraph, Section, Table
from modelassay.report.report import Report

_MOST_PROMPTS = 12


def steering_curves(sweep: SteeringSweep) -> StrengthCurves:
    """Behaviour and perplexity of a sweep, ready to draw."""
    numbers = range(len(sweep.strengths))
    behaviour = [sweep.behaviour_at(number) for number in numbers]
    perplexity = [sweep.perplexity_at(number) for number in numbers]
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
    parts = (_lead(sweep), steering_curves(sweep), _numbers(sweep))
    sections = [
        Section(anchor="sweep", title="Sweep", parts=parts),
        Section(anchor="tokens", title="Tokens", parts=(_prompts(sweep),)),
    ]
    if continuations:
        table = Table(
            title="What the model writes",
            columns=("strength", "continuation of the first prompt"),
            rows=tuple(continuations),
            caption="The likeliest token each time.",
        )
        sections.append(Section(anchor="text", title="Text", parts=(table,)))
    page = Page(
        title=f"{subject} · steering",
        subtitle=f"{sweep.operation}: {sweep.units} at {sweep.site}",
        sections=tuple(sections),
        footer=f"modelassay {provenance.versions.get('modelassay', '')} · {subject} · seed "
        f"{provenance.seed} · {provenance.created}",
    )
    return Report(page)


def _lead(sweep: SteeringSweep) -> Paragraph:
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
    return Paragraph(
        text=f"The mean of “{sweep.behaviour}” is {sweep.baseline()} without steering; steered, it "
        f"is {told}."
    )


def _numbers(sweep: SteeringSweep) -> Table:
    chance = sweep.random_behaviour()
    return Table(
        title="Numbers",
        columns=("strength", sweep.behaviour, "random directions", "perplexity", "steered / own"),
        rows=tuple(
            (
                f"{strength:g}",
                str(sweep.behaviour_at(number)),
                f"{float(chance[:, number].min()):.3f} to {float(chance[:, number].max()):.3f}",
                str(sweep.perplexity_at(number)),
                str(sweep.cost_at(number)),
            )
            for number, strength in enumerate(sweep.strengths)
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
