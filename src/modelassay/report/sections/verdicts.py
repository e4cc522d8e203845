"""The answer that a report opens with."""

from collections import Counter

from modelassay.audit.parts import QUESTIONS
from modelassay.audit.result import Audit
from modelassay.report.axes import percent
from modelassay.report.parts import Paragraph, ShareBar, Shares
from modelassay.report.wording import VERDICT_CLASSES


def headline(audit: Audit) -> Paragraph:
    """The share of latents that are features of the model, in one sentence."""
    count = Counter(audit.verdicts)["model"]
    share = percent(audit.shares()["model"])
    verb = "is a feature" if count == 1 else "are features"
    return Paragraph(
        role="headline", text=f"{count:,} of {audit.width:,} latents ({share}) {verb} of the model."
    )


def verdict_shares(audit: Audit) -> Shares:
    """All latents, split by verdict."""
    return Shares(
        title="Verdicts",
        classes=VERDICT_CLASSES,
        bars=(ShareBar(name=audit.dictionary, shares=audit.shares(), n=audit.width),),
        caption=f"All {audit.width:,} latents of {audit.dictionary} at {audit.site} "
        f"of {audit.subject}. {data_of(audit)}",
        prominent=True,
    )


def summary(audit: Audit) -> Paragraph:
    """What was audited and what the verdict means."""
    return Paragraph(
        title="What this says.",
        text=f"{audit.dictionary} splits the activations at {audit.site} of {audit.subject} "
        f"({audit.d_model:,} dimensions) into {audit.width:,} latents. Each latent was put before "
        "four questions, on held-out documents: is it written (computed, rather "
        "than given by the nearby tokens), is it read (does the rest of the network react to it "
        "more than to matched directions), is it learned (absent from twins of the network that "
        "are untrained or have permuted weights), is it stable (found again from another seed)? "
        "Only a latent with four clear yeses is called a feature of the model. A latent that "
        "explains the activations well, and looks meaningful, may still fail: then it is "
        "structure of the data that the network does not use as a unit.",
    )


def what_would_change_it(audit: Audit) -> Paragraph:
    """Which latents more data could move, and which it could not."""
    counts: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for latent, verdict in enumerate(audit.verdicts):
        if verdict != "undetermined":
            continue
        missing = {
            q: audit.answers[q][latent] for q in QUESTIONS if audit.answers[q][latent] != "yes"
        }
        counts["no" if "no" in missing.values() else "unclear"] += 1
        if len(missing) == 1:
            alone[next(iter(missing))] += 1
    total = counts["no"] + counts["unclear"]
    if total == 0:
        text = "No latent is undetermined: more data of this kind would change little."
    else:
        text = (
            f"Of the {total:,} undetermined latents, {counts['unclear']:,} have no answer against "
            "them, only unclear ones: more held-out text, or more interventions per latent, can "
            f"settle these. The other {counts['no']:,} have a definite no in at least one "
            "question: more text will not make them features of the model."
        )
        if alone:
            question, count = alone.most_common(1)[0]
            text += (
                f" {sum(alone.values()):,} fall short in a single question, most often "
                f"“{question}” ({count:,})."
            )
    return Paragraph(title="What would change it.", text=text)


def baselines(audit: Audit) -> Shares:
    """The same audit of dictionaries that should do worse."""
    sampled = audit.provenance.facts.get("baseline_latents")
    n = sampled if isinstance(sampled, int) else None
    own = ShareBar(name=audit.dictionary, shares=audit.shares(), n=audit.width, note="audited")
    others = (
        ShareBar(name=name, shares=shares, n=n, note="baseline")
        for name, shares in audit.baselines.items()
    )
    each = f"{n:,} of its latents" if n else "its latents"
    return Shares(
        title="Beside baselines",
        classes=VERDICT_CLASSES,
        bars=(own, *others),
        caption=f"Baselines under the same rule, each on a random sample of {each}. "
        f"{_margin(audit)} {data_of(audit)}",
    )


def _margin(audit: Audit) -> str:
    if not audit.baselines:
        return "No baseline was audited: the headline lacks its yardstick."
    name, shares = max(audit.baselines.items(), key=lambda item: item[1].get("model", 0.0))
    best, own = shares.get("model", 0.0), audit.shares()["model"]
    if best >= own:
        return (
            f"The baseline {name} reaches {percent(best)} of the model, no less than the audited "
            f"dictionary's {percent(own)}: do not credit this share to what was fitted."
        )
    return (
        f"The best baseline, {name}, reaches {percent(best)} of the model against "
        f"{percent(own)}: the headline is worth its margin over that."
    )


def data_of(audit: Audit) -> str:
    """The sentence that says what the numbers of a figure were measured on."""
    facts = audit.provenance.facts
    corpus = facts.get("corpus")
    tokens, documents = facts.get("heldout_tokens"), facts.get("heldout_documents")
    amount = f"{tokens:,} held-out tokens" if isinstance(tokens, int) else "held-out tokens"
    if isinstance(documents, int):
        amount += f" in {documents:,} documents"
    return f"Data: {amount} of {corpus}." if corpus else f"Data: {amount}."
