"""The main job from names on a command line to an audit on disk.

    <out>/audit.json, <out>/audit.safetensors   the result
    <out>/dictionary/                            the audited dictionary, if it was fitted here
    <out>/unfinished/                            harvests and fits of an interrupted audit

An interrupted audit goes on from `unfinished/`; a finished one has none.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from modelassay.activations.corpus import (
    Corpus,
    Split,
    TokenizedCorpus,
    read_texts,
    tokenize,
)
from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.pretokenised import read_tokens
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.audit.assay import audit, check, check_tokens
from modelassay.audit.result import Audit
from modelassay.audit.rivals import fit_rivals, recipe_like
from modelassay.audit.settings import AuditSettings
from modelassay.core.errors import OutputExistsError, ProvenanceError, UnsupportedModelError
from modelassay.core.files import (
    jsonable,
    prepare_output,
    read_json,
    translate_os_errors,
    write_json,
)
from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.formats.registry import read_dictionary
from modelassay.decompositions.recipes import Recipe, TopK
from modelassay.decompositions.storage import load_decomposition
from modelassay.fitting.fit import fit
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

CONTEXT_TOKENS = 256
"""Tokens of a context, or what the model reads if that is less (ours)."""
HELDOUT_SHARE = 0.2
"""Of the harvested tokens, where the corpus has them: all evidence is measured on these (ours)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditConfig:
    """What `modelassay audit` was asked for."""

    subject: str = "bundled"
    """"bundled", a Hugging Face id, or a folder."""
    site: str | None = None
    """None: the residual stream after the middle layer."""
    dictionary: str | None = None
    """A dictionary's folder, one of another format such as `saelens:FOLDER`, or None to fit one."""
    recipe: Recipe = field(default_factory=lambda: TopK(width=1024, k=16))
    """What to fit where no dictionary is given."""
    corpus: Path | None = None
    """A text file, a folder of texts, or a `.jsonl` of token ids; None: the standard library."""
    tokens: int = 400_000
    """To harvest, both sides of the split together."""
    fit_tokens: int | None = None
    """Seen by each fit, repeats counted; None: the trainer's default."""
    settings: AuditSettings = field(default_factory=AuditSettings)
    seed: int = 0
    device: str = "cpu"
    out: Path = Path("out/audit")
    resume: bool = False
    force: bool = False


def run_audit(config: AuditConfig, progress: Progress) -> Audit:
    """Load, harvest, fit, audit and save.

    Raises:
        OutputExistsError: if `out` holds something and neither `resume` nor `force` is set.
        ModelassayError: for everything else that a user can cause.
    """
    _refuse_to_overwrite(config)
    subject = load_subject(config.subject, device=config.device)
    site = subject.resolve(config.site or _middle(subject))
    given = None if config.dictionary is None else read_dictionary(config.dictionary)
    contexts = contexts_of(config, subject, progress)
    check_tokens(contexts)
    work = _prepare(config)
    activations = harvest(
        subject, contexts, site, directory=work / "harvest", seed=config.seed, progress=progress
    )
    dictionary = given or _fit_dictionary(config, activations, work, progress)
    check(subject, dictionary, activations)
    codes = dictionary.encode(activations.select("heldout").activations(site))
    rivals = fit_rivals(
        subject,
        activations,
        recipe_like(dictionary, codes),
        seed=config.seed,
        tokens=config.fit_tokens,
        folder=work,
        progress=progress,
    )
    result = audit(
        subject,
        dictionary,
        activations,
        settings=config.settings,
        rivals=rivals,
        seed=config.seed,
        progress=progress,
    )
    result.save(config.out)
    if given is None:
        dictionary.save(config.out / "dictionary", force=True)
    shutil.rmtree(work)
    return result


def contexts_of(
    config: AuditConfig, subject: Subject, progress: Progress = SILENT
) -> TokenizedCorpus:
    """The contexts to harvest: random ones, a fifth of the tokens from held-out documents.

    Raises:
        TooFewTokensError: if the corpus has no documents on one side of the split.
        UnsupportedModelError: if a text is given and the model has no tokenizer.
    """
    corpus = read_corpus(config.corpus)
    if isinstance(corpus, TokenizedCorpus):
        contexts = corpus
    elif subject.tokenizer is None:
        raise UnsupportedModelError(
            f"A text corpus needs a model with a tokenizer; got {subject.name!r} without one. "
            "Pass --corpus with a .jsonl file of token ids."
        )
    else:
        length = min(CONTEXT_TOKENS, subject.context_tokens)
        contexts = tokenize(corpus, subject.tokenizer, context_tokens=length, progress=progress)
    sides: tuple[tuple[Split, float], ...] = (
        ("fit", 1 - HELDOUT_SHARE),
        ("heldout", HELDOUT_SHARE),
    )
    chosen = [
        _pick(contexts, split, round(config.tokens * share), derived(config.seed, "take", split))
        for split, share in sides
    ]
    return contexts[torch.cat(chosen).sort().values]


def _pick(
    contexts: TokenizedCorpus, split: Split, n_tokens: int, generator: torch.Generator
) -> Int[Tensor, " context"]:
    """Numbers of random contexts of one side that hold about `n_tokens` measured tokens."""
    contexts.corpus.require(split)
    on_side = torch.tensor([d.split == split for d in contexts.corpus.documents])
    candidates = on_side[contexts.document].nonzero()[:, 0]
    order = candidates[torch.randperm(len(candidates), generator=generator)]
    counts = contexts.measured.sum(1)[order].cumsum(0)
    return order[: int((counts < n_tokens).sum()) + 1]


def read_corpus(path: Path | None) -> Corpus | TokenizedCorpus:
    """The corpus that a path names; the standard library for None.

    Raises:
        UnknownNameError: if there is nothing at the path.
    """
    if path is None:
        return stdlib_corpus()
    if path.suffix == ".jsonl" and path.is_file():
        return read_tokens(path)
    return read_texts(path)


def _middle(subject: Subject) -> Site:
    return Site("resid_post", max(0, subject.n_layers // 2 - 1))


def _work_folder(config: AuditConfig) -> Path:
    return config.out / "unfinished"


def _refuse_to_overwrite(config: AuditConfig) -> None:
    """Before anything is loaded: is there something at the output that must be kept?"""
    if config.force or config.resume or not config.out.is_dir():
        return
    if _work_folder(config).exists():
        raise OutputExistsError(
            f"The output folder must be empty; got {str(config.out)!r} with an interrupted audit. "
            "Go on with --resume, or start anew with --force."
        )
    if any(config.out.iterdir()):
        raise OutputExistsError(
            f"The output folder must be empty; got {str(config.out)!r} with files in it. "
            "Pass --force to overwrite them, or choose another place with --out."
        )


def _prepare(config: AuditConfig) -> Path:
    """The folder of unfinished work: that of the interrupted audit, or an empty one."""
    work = _work_folder(config)
    asked = work / "config.json"
    description = jsonable(_identity(config))
    if config.resume and asked.is_file():
        if read_json(asked) != description:
            raise ProvenanceError(
                f"--resume must repeat the interrupted audit in {str(config.out)!r}; got other "
                f"options than {read_json(asked)}. Repeat those, or start anew with --force."
            )
        return work
    prepare_output(config.out, force=True)
    with translate_os_errors(work):
        if work.exists():
            shutil.rmtree(work)
        work.mkdir()
    write_json(asked, description)
    return work


def _identity(config: AuditConfig) -> dict[str, str | int | None]:
    """What must be equal for an interrupted audit to go on."""
    return {
        "subject": config.subject,
        "site": config.site,
        "dictionary": config.dictionary,
        "recipe": str(config.recipe),
        "corpus": None if config.corpus is None else str(config.corpus),
        "tokens": config.tokens,
        "fit_tokens": config.fit_tokens,
        "seed": config.seed,
    }


def _fit_dictionary(
    config: AuditConfig, activations: Harvest, work: Path, progress: Progress
) -> Decomposition:
    """Fit the audited dictionary, or take it up where an interrupted audit left it."""
    place = work / "dictionary"
    if not (place / "config.json").is_file():
        fitted = fit(
            [config.recipe],
            activations,
            tokens=config.fit_tokens,
            seed=config.seed,
            checkpoint=work / "checkpoint_dictionary",
            resume=True,
            progress=progress,
        )
        assert isinstance(fitted, list)
        fitted[0].save(place)
    return load_decomposition(place)
