"""The work of `modelassay patch`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelassay.cli.intervention_output import check_ending, write_result
from modelassay.cli.intervention_schemas import PatchResult
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.output import refuse_existing
from modelassay.cli.patching_results import result_of
from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.progress import default_progress
from modelassay.core.provenance import Provenance
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.formats.registry import read_dictionary
from modelassay.observe.attribution_patching import (
    Completeness,
    attribute,
    integrated_gradients,
)
from modelassay.observe.mediation import mediate
from modelassay.observe.patching import Direction, Effects
from modelassay.observe.patching import patch as patch_parts
from modelassay.observe.patching_columns import Column
from modelassay.observe.patching_columns import everywhere as at_all_positions
from modelassay.observe.patching_pairs import MEASURES, Measure, PromptPairs, tokenize_pairs
from modelassay.observe.patching_parts import (
    Latents,
    Part,
    Residue,
    Whole,
    heads_of,
    sites_of,
)
from modelassay.observe.patching_paths import patch_paths
from modelassay.observe.patching_texts import read_pairs
from modelassay.report.intervention_pictures import effect_picture
from modelassay.report.patching import effect_map, patching_report, patching_summary
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchJob:
    """What the command line asked for."""

    subject: str
    pairs: Path
    parts: Sequence[str]
    dictionary: str | None
    latents: int
    noising: bool
    everywhere: bool
    measure: str
    estimate: str
    mediate: bool
    paths: bool
    receiver: str | None
    limit: int
    out: Path
    join: Path | None
    force: bool
    seed: int
    device: str

    @property
    def direction(self) -> Direction:
        """Which run is changed."""
        return "noising" if self.noising else "denoising"


def patched(job: PatchJob) -> PatchResult:
    """Patch, estimate, mediate, draw, and say what carries the most."""
    refuse_existing(job.out, force=job.force)
    check_ending(job.out)
    subject = load_subject(job.subject, device=job.device)
    check_join(job.join, subject)
    receiver = None if job.receiver is None else subject.resolve(job.receiver)
    pairs = aligned(subject, job.pairs, job.limit)
    columns = [_all(pairs)] if job.everywhere else None
    measure = MEASURES[job.measure]
    if job.dictionary is None:
        chosen = parse_parts(subject, job.parts)
    else:
        read = read_dictionary(job.dictionary)
        chosen = strongest_latents(subject, pairs, read, job.latents, measure, job.direction)
    by_path = job.paths or receiver is not None
    senders = senders_to(chosen, receiver) if by_path else []
    effects = patch_parts(
        subject, pairs, chosen, columns=columns, measure=measure, direction=job.direction,
        progress=default_progress(),
    )  # fmt: skip
    estimates, checks = _estimated(job, subject, pairs, chosen, columns)
    mediations = [
        mediate(subject, pairs, [part], measure=measure) for part in (chosen if job.mediate else ())
    ]
    paths = None
    if by_path:
        paths = patch_paths(
            subject, pairs, senders, receiver, columns=columns, measure=measure,
            direction=job.direction,
        )  # fmt: skip
    provenance = Provenance.collect(
        seed=job.seed, device=job.device, model=subject.fingerprint(), pairs=job.pairs.name,
        measure=job.measure, dictionary=job.dictionary,
    )  # fmt: skip
    words = job.measure.replace("_", " ")
    report = patching_report(
        subject.name, effects, provenance, measure=words, estimates=estimates, checks=checks,
        mediations=mediations, paths=paths, left_out=pairs.left_out, seed=job.seed,
    )  # fmt: skip
    drawn = effect_map(effects, job.seed)
    write_result(job.out, report, lambda: effect_picture(drawn), force=job.force)
    summary = patching_summary(effects, words, job.seed)
    join_page(job.join, report, subject, provenance, command="patch", out=job.out, summary=summary)
    return result_of(
        subject, effects, pairs, job.out, job.seed, estimates=estimates, checks=checks,
        mediations=mediations, paths=paths,
    )  # fmt: skip


def _estimated(
    job: PatchJob,
    subject: Subject,
    pairs: PromptPairs,
    chosen: Sequence[Part],
    columns: Sequence[Column] | None,
) -> tuple[list[Effects], tuple[Completeness, ...]]:
    """Effects estimated by gradients, as asked for."""
    measure, found = MEASURES[job.measure], list[Effects]()
    checks: tuple[Completeness, ...] = ()
    if job.estimate in ("gradient", "both"):
        found.append(
            attribute(
                subject, pairs, chosen, columns=columns, measure=measure, direction=job.direction
            )
        )
    if job.estimate in ("integrated", "both"):
        effects, checks = integrated_gradients(
            subject, pairs, chosen, columns=columns, measure=measure, direction=job.direction,
            progress=default_progress(),
        )  # fmt: skip
        found.append(effects)
    return found, checks


def senders_to(parts: Sequence[Part], receiver: Site | None) -> list[Part]:
    """The parts from which a path leads to the receiver.

    Raises:
        ValueRangeError: there is none.
    """
    found = [part for part in parts if receiver is None or part.site < receiver]
    if not found:
        raise ValueRangeError(
            f"Some of the parts must come before the receiver; got {parts[0].name!r} to "
            f"{parts[-1].name!r} and {str(receiver)!r}. Name a later receiver."
        )
    return found


def aligned(subject: Subject, file: Path, limit: int) -> PromptPairs:
    """The first pairs of a file that this model's tokenizer cuts alike.

    Raises:
        UnsupportedModelError: the model has no tokenizer.
    """
    if subject.tokenizer is None:
        raise UnsupportedModelError(
            f"Pairs in words need a tokenizer; got {subject.name!r}, which has none. "
            "Make PromptPairs of token ids in Python."
        )
    return tokenize_pairs(subject.tokenizer, read_pairs(file), unfit="leave out")[slice(limit)]


def parse_parts(subject: Subject, words: Sequence[str]) -> list[Part]:
    """Parts as they are typed: "heads", a role for every layer, or a site."""
    found: list[Part] = []
    for word in (word.strip() for word in words):
        if word == "heads":
            found += heads_of(subject)
        elif "." in word or ":" in word:
            found.append(Whole(subject.resolve(word)))
        else:
            found += sites_of(subject, word)
    return found


def strongest_latents(
    subject: Subject,
    pairs: PromptPairs,
    dictionary: Decomposition,
    count: int,
    measure: Measure,
    direction: Direction,
) -> list[Part]:
    """The dictionary's error, and the latents with the largest estimated mean effects.

    Raises:
        ValueRangeError: the dictionary does not say which site it belongs to.
    """
    site = dictionary.reads
    if site is None:
        raise ValueRangeError(
            f"A dictionary must say which site it reads; got {dictionary.name!r}, which does not. "
            "Convert it with its site."
        )
    every = [
        Latents(site, dictionary, (latent,)) for latent in _active(subject, site, dictionary, pairs)
    ]
    if not every:
        return [Residue(site, dictionary)]
    estimated = attribute(
        subject, pairs, every, columns=[_all(pairs)], measure=measure, direction=direction
    )
    order = estimated.values[:, 0].mean(1).abs().argsort(descending=True)[:count]
    return [Residue(site, dictionary), *(every[number] for number in order.tolist())]


def _active(
    subject: Subject, site: Site, dictionary: Decomposition, pairs: PromptPairs
) -> list[int]:
    """Latents that are active on some of the prompts."""
    counts = sum(
        dictionary.encode(
            subject.run(tokens, read=[site], until=site).activations[site][pairs.real].flatten(1)
        ).firing_counts()
        for tokens in (pairs.clean, pairs.corrupt)
    )
    assert not isinstance(counts, int)
    return counts.nonzero()[:, 0].tolist()


def _all(pairs: PromptPairs) -> Column:
    return at_all_positions(pairs)
