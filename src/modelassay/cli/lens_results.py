"""The work of `modelassay lens show`, `attribute` and `heads`."""

from pathlib import Path

import torch

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.audit.run import read_corpus
from modelassay.cli.joining import check_join, join_page
from modelassay.cli.lens_schemas import (
    HeadEntry,
    LensAttributionResult,
    LensHeadsResult,
    LensPart,
    LensShowResult,
)
from modelassay.cli.output import refuse_existing
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.core.errors import UnknownNameError, ValueRangeError
from modelassay.core.files import jsonable, write_atomically
from modelassay.core.provenance import Provenance
from modelassay.decompositions.storage import load_decomposition
from modelassay.observe.direct_logit_attribution import direct_logit_attribution
from modelassay.observe.head_patterns import KINDS, HeadKind
from modelassay.observe.heads import HeadScores, heads_on_repeated_tokens, heads_on_text
from modelassay.observe.lenses.lens import Lens, LogitLens
from modelassay.observe.lenses.load import load_lens
from modelassay.observe.lenses.reading import LensReading, lens_reading, tokens_of
from modelassay.observe.stream_parts import Replacement
from modelassay.report.lens import lens_report
from modelassay.report.lens_parts import LensMeasure
from modelassay.report.lens_picture import lens_picture
from modelassay.report.raster import write_png
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

_PICTURES = (".html", ".svg", ".png")


def shown(
    model: str,
    text: str,
    *,
    kinds: str,
    lenses: Path,
    colour: LensMeasure,
    count: int,
    out: Path,
    join: Path | None,
    device: str,
    force: bool,
) -> LensShowResult:
    """Read a text through lenses and write the page or the picture."""
    if out.suffix not in _PICTURES:
        raise UnknownNameError("The suffix of --out", out.suffix, _PICTURES)
    refuse_existing(out, force=force)
    subject = load_subject(model, device=device)
    check_join(join, subject)
    wanted = [named_lens(name.strip(), lenses) for name in kinds.split(",")]
    readings = lens_reading(subject, wanted, text, count=count)
    provenance = Provenance.collect(
        seed=0, device=device, subject=subject.name, subject_fingerprint=subject.fingerprint()
    )
    page = lens_report(readings, provenance)
    if out.suffix == ".html":
        page.write(out, force=force)
    elif out.suffix == ".svg":
        write_atomically(out, lens_picture(readings[0], colour))
    else:
        write_png(out, lens_picture(readings[0], colour))
    said = " ".join(text.split())
    summary = f"{kinds} lens on “{said[:80]}{'…' if len(said) > 80 else ''}”"
    join_page(join, page, subject, provenance, command="lens", out=out, summary=summary)
    return {
        "schema_version": SCHEMA_VERSION,
        "out": str(out),
        "subject": subject.name,
        "tokens": list(readings[0].texts),
        "layers": list(readings[0].depths),
        "lenses": [
            {
                "name": reading.lens,
                "top_tokens": _top_texts(reading),
                "probabilities": jsonable(reading.top_probabilities[:, :, 0]),
                "entropy": jsonable(reading.entropy),
                "kl": jsonable(reading.kl),
                "cross_entropy": jsonable(reading.cross_entropy),
                "rank": [[None if r < 0 else r for r in row] for row in reading.rank.tolist()],
            }
            for reading in readings
        ],
    }


def named_lens(name: str, folder: Path) -> Lens:
    """The logit lens, a fitted one of a kind from its folder, or one from a file.

    Raises:
        UnknownNameError: no such kind, or none was fitted.
    """
    if name == "logit":
        return LogitLens()
    path = folder / f"{name}.safetensors" if name in ("tuned", "jacobian") else Path(name)
    if path.is_file():
        return load_lens(path)
    known = ["logit", *(str(each) for each in sorted(folder.glob("*.safetensors")))]
    error = UnknownNameError("A lens", f"{name} (no {path})", known)
    error.message += " Fit one with `modelassay lens train`."
    raise error


def _top_texts(reading: LensReading) -> list[list[str]]:
    return [[reading.top_texts[token] for token in row] for row in reading.top[:, :, 0].tolist()]


def shown_text(result: LensShowResult) -> str:
    """One line, and the final predictions' agreement by layer."""
    lines = [f"{result['subject']}: {len(result['tokens'])} tokens"]
    for each in result["lenses"]:
        kl = [sum(row) / len(row) for row in each["kl"]]
        by_layer = "  ".join(f"{n} {v:.2f}" for n, v in zip(result["layers"], kl, strict=True))
        lines.append(f"{each['name']} lens, KL from the final prediction in nats: {by_layer}")
    return "\n".join([*lines, f"The lens is at {result['out']}"])


def attributed(
    model: str,
    text: str,
    *,
    target: str | None,
    contrast: str | None,
    dictionary: Path | None,
    device: str,
) -> LensAttributionResult:
    """Take the logit of a token after a prompt apart."""
    subject = load_subject(model, device=device)
    tokens = tokens_of(subject, text)[None]
    replacement = None
    if dictionary is not None:
        loaded = load_decomposition(dictionary)
        if loaded.reads is None:
            raise ValueRangeError(
                f"A dictionary must say which site it reads; got none in {str(dictionary)!r}. "
                "Fit it with modelassay, or convert it with a site."
            )
        replacement = Replacement(dictionary=loaded, site=loaded.reads)
    logits = subject.run(tokens).logits
    assert logits is not None
    chosen = logits[0, -1].argmax().cpu() if target is None else _one_token(subject, target)
    against = None if contrast is None else _one_token(subject, contrast)
    found = direct_logit_attribution(
        subject,
        tokens,
        chosen[None],
        contrasts=None if against is None else against[None],
        replacement=replacement,
    )
    parts: list[LensPart] = [
        {"name": name, "logit": value}
        for name, value in zip(found.parts, jsonable(found.attribution[0]), strict=True)
    ]
    names = subject.token_strings([int(chosen), *([] if against is None else [int(against)])])
    return {
        "schema_version": SCHEMA_VERSION,
        "subject": subject.name,
        "target": names[0],
        "contrast": None if against is None else names[1],
        "logit": float(found.logit[0]),
        "error": found.error,
        "parts": parts,
    }


def _one_token(subject: Subject, text: str) -> torch.Tensor:
    """The token that a text is; as it stands inside a text, so that no space is added to it."""
    ids = [i for i, t in enumerate(subject.token_strings(range(subject.vocab_size))) if t == text]
    if not ids:
        known = [t for t in subject.token_strings(range(subject.vocab_size)) if t]
        raise UnknownNameError("A token of this model", text, known)
    return torch.tensor(ids[0])


def attributed_text(result: LensAttributionResult, count: int) -> str:
    """The largest parts, with the sum of the rest."""
    against = "the mean" if result["contrast"] is None else repr(result["contrast"])
    ordered = sorted(result["parts"], key=lambda part: -abs(part["logit"]))
    lines = [f"{result['subject']}: logit of {result['target']!r} against {against}"]
    lines += [f"  {part['logit']:+8.3f}  {part['name']}" for part in ordered[:count]]
    rest = ordered[count:]
    if rest:
        total = sum(part["logit"] for part in rest)
        lines.append(f"  {total:+8.3f}  {len(rest)} other parts together")
    return "\n".join([*lines, f"  {result['logit']:+8.3f}  the logit, which they sum to"])


def found_heads(
    model: str, *, corpus: Path | None, threshold: float, seed: int, device: str
) -> LensHeadsResult:
    """Score the heads of a model on repeated random tokens, and on texts if there are any."""
    subject = load_subject(model, device=device)
    measured = {"repeated random tokens": heads_on_repeated_tokens(subject, seed=seed)}
    if corpus is not None:
        texts = read_corpus(corpus)
        if not isinstance(texts, TokenizedCorpus):
            if subject.tokenizer is None:
                raise ValueRangeError(
                    f"A corpus of texts needs a tokenizer; got the subject {subject.name!r} "
                    "without one. Pass a .jsonl of token ids."
                )
            length = min(128, subject.context_tokens)
            texts = tokenize(texts, subject.tokenizer, context_tokens=length)
        measured["text"] = heads_on_text(subject, texts, seed=seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "subject": subject.name,
        "threshold": threshold,
        "found": [e for on, scores in measured.items() for e in _entries(scores, on, threshold)],
        "best": [_best(scores, on, kind) for on, scores in measured.items() for kind in KINDS],
        "copying_nats": measured["repeated random tokens"].copying,
    }


def _entries(scores: HeadScores, measured_on: str, threshold: float) -> list[HeadEntry]:
    return [
        {
            "kind": each.kind, "measured_on": measured_on, "layer": each.layer,
            "head": each.head, "score": each.score, "null": each.null,
        }
        for each in scores.found(threshold)
    ]  # fmt: skip


def _best(scores: HeadScores, measured_on: str, kind: HeadKind) -> HeadEntry:
    best = scores.best(kind)
    return {
        "kind": best.kind, "measured_on": measured_on, "layer": best.layer,
        "head": best.head, "score": best.score, "null": best.null,
    }  # fmt: skip


def heads_text(result: LensHeadsResult) -> str:
    """What was found, and the best of each kind, found or not."""
    lines = [f"{result['subject']}: heads with a score of at least {result['threshold']}"]
    lines += [f"  {_line(each)}" for each in result["found"]] or ["  none"]
    lines.append("Best of each kind, reported or not:")
    lines += [f"  {_line(each)}" for each in result["best"]]
    if result["copying_nats"] is not None:
        lines.append(
            f"The second copy of random tokens costs {result['copying_nats']:.2f} nats less a token"
        )
    return "\n".join(lines)


def _line(each: HeadEntry) -> str:
    kind = each["kind"].replace("_", " ")
    return (
        f"L{each['layer']}H{each['head']}  {kind:<15}  {each['score']:.2f} "
        f"(shuffled {each['null']:.2f})  on {each['measured_on']}"
    )
