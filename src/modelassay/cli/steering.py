"""The work of `modelassay steer`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.audit.run import CONTEXT_TOKENS, read_corpus
from modelassay.cli.intervention_output import check_ending, quantity, write_result
from modelassay.cli.intervention_schemas import SteerPoint, SteerResult
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.output import refuse_existing
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.core.errors import UnsupportedModelError, ValueRangeError
from modelassay.core.files import translate_os_errors
from modelassay.core.progress import default_progress
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.decompositions.formats.registry import read_dictionary
from modelassay.observe.steering import SteeredLatents, Steering, Units, generate_steered
from modelassay.observe.steering_behaviour import TokenProbability
from modelassay.observe.steering_operations import Operation, OperationName
from modelassay.observe.steering_sweep import SteeringSweep, sweep
from modelassay.observe.steering_vectors import mean_difference
from modelassay.observe.steering_where import Where
from modelassay.report.intervention_pictures import curves_picture
from modelassay.report.steering import steering_curves, steering_report, steering_summary
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class SteerOptions:
    """What `modelassay steer` was asked for."""

    subject: str
    targets: Sequence[str]
    prompts: Sequence[str]
    prompt_file: Path | None
    dictionary: str | None
    latents: str
    towards: Path | None
    away: Path | None
    site: str | None
    operation: OperationName
    strengths: str
    token_ids: str
    random: int
    corpus: Path | None
    tokens: int
    new_tokens: int
    out: Path
    join: Path | None
    force: bool
    seed: int
    device: str


def steered(options: SteerOptions) -> SteerResult:
    """Sweep, write and draw."""
    refuse_existing(options.out, force=options.force)
    check_ending(options.out)
    subject = load_subject(options.subject, device=options.device)
    check_join(options.join, subject)
    if subject.tokenizer is None:
        raise UnsupportedModelError(
            f"Prompts in words need a tokenizer; got {subject.name!r}, which has none. "
            "Call modelassay.observe.steering_sweep.sweep with token ids in Python."
        )
    prompts = [ids(subject, line) for line in [*options.prompts, *lines_of(options.prompt_file)]]
    if not prompts:
        raise ValueRangeError(
            "There must be at least one prompt; got none. Give --prompt, or a file with --prompts."
        )
    behaviour = _behaviour(subject, options.targets)
    site, units = _units(subject, options)
    chosen = numbers(options.token_ids)
    steering = Steering(
        site=site,
        units=units,
        operation=Operation(options.operation),
        where=Where(tokens=frozenset(map(int, chosen)) if chosen else None),
    )
    strengths = [0.0] if options.operation == "ablate" else numbers(options.strengths)
    found = sweep(
        subject,
        steering,
        strengths,
        behaviour,
        prompts,
        _text(subject, options),
        n_random=options.random,
        seed=options.seed,
        progress=default_progress(),
    )
    written = [
        continuation(subject, prompts[0], [steering.at(s)], options.new_tokens) for s in strengths
    ]
    own = continuation(subject, prompts[0], [], options.new_tokens)
    shown = [("unsteered", own), *((f"{s:g}", t) for s, t in zip(strengths, written, strict=True))]
    provenance = Provenance.collect(
        seed=options.seed, device=options.device, model=subject.fingerprint(),
        dictionary=options.dictionary,
    )  # fmt: skip
    report = steering_report(subject.name, found, provenance, continuations=shown)
    write_result(
        options.out, report, lambda: curves_picture(steering_curves(found)), force=options.force
    )
    summary = steering_summary(found)
    join_page(
        options.join, report, subject, provenance,
        command="steer", out=options.out, summary=summary,
    )  # fmt: skip
    return _result(subject, found, written, options.out)


def ids(subject: Subject, text: str) -> Tensor:
    """A prompt's tokens, after a BOS token if there is one."""
    tokenizer = subject.tokenizer
    assert tokenizer is not None
    bos = getattr(tokenizer, "bos_token_id", None)
    own = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([*([] if bos is None else [bos]), *own])


def lines_of(path: Path | None) -> list[str]:
    """The lines of a file that are not empty."""
    if path is None:
        return []
    with translate_os_errors(path):
        text = path.read_text("utf-8")
    return [line for line in text.splitlines() if line.strip()]


def numbers(text: str) -> list[float]:
    """Numbers as they are typed, separated by commas.

    Raises:
        ValueRangeError: one is no number.
    """
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError as error:
        raise ValueRangeError(
            f"Numbers must be separated by commas; got {text!r}. Write for example 0,2,4."
        ) from error


def continuation(
    subject: Subject, prompt: Tensor, steerings: Sequence[Steering], new_tokens: int
) -> str:
    """What the model writes after a prompt."""
    longer = generate_steered(subject, prompt[None], steerings, max_new_tokens=new_tokens)
    return "".join(subject.token_strings(longer[0, len(prompt) :].tolist()))


def _units(subject: Subject, options: SteerOptions) -> tuple[Site, Units]:
    if options.dictionary is not None:
        dictionary = read_dictionary(options.dictionary)
        known = options.site or dictionary.reads
        if known is None:
            raise ValueRangeError(
                f"A dictionary must say which site it reads; got {dictionary.name!r}, which does "
                "not. Give --site."
            )
        chosen = tuple(int(number) for number in numbers(options.latents))
        return subject.resolve(known), SteeredLatents(dictionary, chosen)
    if options.towards is None or options.away is None or options.site is None:
        raise ValueRangeError(
            "Steering must be told what to steer: --dictionary with --latents, or --towards, "
            "--away and --site; got neither. Give one of them."
        )
    sets = [[ids(subject, t) for t in lines_of(file)] for file in (options.towards, options.away)]
    found = mean_difference(subject, options.site, sets[0], sets[1])
    return found.site, found.units


def _behaviour(subject: Subject, targets: Sequence[str]) -> TokenProbability:
    # Behind another text, because some tokenizers drop the space at a text's start.
    tokenizer = subject.tokenizer
    assert tokenizer is not None
    before = tokenizer("a", add_special_tokens=False)["input_ids"]
    found: set[int] = set()
    if not all(targets):
        raise ValueRangeError(
            "A target must be a text of at least one token; got ''. Write for example --target "
            "' happy', with its space."
        )
    for target in targets:
        whole = tokenizer(f"a{target}", add_special_tokens=False)["input_ids"]
        own = tokenizer(target, add_special_tokens=False)["input_ids"]
        found.add(whole[len(before)] if whole[: len(before)] == before else own[0])
    names = ", ".join(map(repr, subject.token_strings(sorted(found))))
    return TokenProbability(tokens=frozenset(found), title=f"probability of {names}")


def _text(subject: Subject, options: SteerOptions) -> TokenizedCorpus:
    corpus = read_corpus(options.corpus)
    if not isinstance(corpus, TokenizedCorpus):
        length = min(CONTEXT_TOKENS, subject.context_tokens)
        assert subject.tokenizer is not None
        corpus = tokenize(corpus.select("heldout"), subject.tokenizer, context_tokens=length)
    else:
        corpus = corpus.select("heldout")
    return corpus.take(options.tokens, derived(options.seed, "steering text"))


def _result(
    subject: Subject, found: SteeringSweep, written: Sequence[str], out: Path
) -> SteerResult:
    chance, beyond = found.random_behaviour(), found.beyond_chance()
    points: list[SteerPoint] = []
    for number, strength in enumerate(found.strengths):
        behaviour, perplexity = found.behaviour_at(number), found.perplexity_at(number)
        points.append(
            {
                "strength": strength,
                "behaviour": behaviour.value,
                "behaviour_low": quantity(behaviour.low),
                "behaviour_high": quantity(behaviour.high),
                "random_low": float(chance[:, number].min()),
                "random_high": float(chance[:, number].max()),
                "beyond_chance": beyond[number],
                "perplexity": perplexity.value,
                "perplexity_low": quantity(perplexity.low),
                "perplexity_high": quantity(perplexity.high),
                "cost": found.cost_at(number).value,
                "continuation": written[number],
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "subject": subject.name,
        "site": found.site,
        "units": found.units,
        "operation": found.operation,
        "behaviour": found.behaviour,
        "unsteered": found.baseline().value,
        "unsteered_perplexity": found.perplexity_at(None).value,
        "points": points,
        "file": str(out),
    }


def steered_text(result: SteerResult) -> str:
    """The sweep for a terminal."""
    lines = [
        f"{result['operation']}: {result['units']} at {result['site']}",
        f"{result['behaviour']}: {result['unsteered']:.4g} unsteered, at a perplexity of "
        f"{result['unsteered_perplexity']:.4g}",
    ]
    for point in result["points"]:
        mark = "beyond chance" if point["beyond_chance"] else "as chance"
        lines.append(
            f"  {point['strength']:8g}  {point['behaviour']:.4g} ({mark}: "
            f"{point['random_low']:.4g} to {point['random_high']:.4g})  perplexity "
            f"{point['perplexity']:.4g}  {point['continuation'][:40]!r}"
        )
    return "\n".join([*lines, f"The picture is {result['file']}"])
