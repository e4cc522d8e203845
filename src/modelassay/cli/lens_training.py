"""The work of `modelassay lens train`."""

from pathlib import Path
from typing import cast

from modelassay.activations.corpus import TokenizedCorpus, tokenize
from modelassay.audit.run import read_corpus
from modelassay.cli.lens_schemas import LensTrainResult
from modelassay.cli.output import refuse_existing
from modelassay.cli.schemas import SCHEMA_VERSION, ProvenanceEntry
from modelassay.core.errors import ValueRangeError
from modelassay.core.files import jsonable, prepare_output, write_atomically
from modelassay.core.progress import default_progress
from modelassay.core.randomness import derived
from modelassay.observe.lenses.jacobian import FIRST_POSITIONS, JacobianLens, fit_jacobian_lens
from modelassay.observe.lenses.lens import LogitLens
from modelassay.observe.lenses.quality import LensQuality, measure_lenses
from modelassay.observe.lenses.training import TunedLensRecipe, train_tuned_lens
from modelassay.observe.lenses.tuned import TunedLens
from modelassay.report.lens_picture import curves_picture
from modelassay.subjects.load import load_subject
from modelassay.subjects.subject import Subject

_CONTEXT_TOKENS = 128  # ours; a Jacobian lens reads no further either


def trained(
    model: str,
    *,
    kind: str,
    corpus: Path | None,
    steps: int,
    tokens_per_step: int,
    prompts: int,
    heldout_tokens: int,
    out: Path,
    seed: int,
    device: str,
    resume: bool,
    force: bool,
) -> LensTrainResult:
    """Fit a lens, write it, and measure it beside the logit lens."""
    subject = load_subject(model, device=device)
    path = out / f"{kind}.safetensors"
    refuse_existing(path, force=force)
    prepare_output(out, force=True)  # the lenses of other kinds may stand beside this one
    contexts = _contexts(subject, corpus)
    fit = contexts.select("fit")
    progress = default_progress()
    lens: TunedLens | JacobianLens
    if kind == "tuned":
        recipe = TunedLensRecipe(steps=steps, tokens_per_step=tokens_per_step)
        unfinished = out / f"{kind}_unfinished"
        if not resume:
            _remove(unfinished)
        lens = train_tuned_lens(
            subject, fit, recipe=recipe, seed=seed, checkpoint=unfinished, progress=progress
        )
        lens.save(path, force=force)
        _remove(unfinished)
    else:
        long = fit[fit.mask.sum(1) > FIRST_POSITIONS + 1]
        chosen = long.take(prompts * _CONTEXT_TOKENS, derived(seed, "prompts"))
        lens = fit_jacobian_lens(subject, chosen, n_prompts=prompts, progress=progress)
        lens.save(path, force=force)
    heldout = contexts.select("heldout").take(heldout_tokens, derived(seed, "held-out contexts"))
    logit, fitted = measure_lenses(
        subject, [LogitLens(), lens], heldout, seed=seed, progress=progress
    )
    picture = curves_picture([logit, fitted], subject.name)
    write_atomically(out / f"{kind}_kl.svg", picture)
    return _result(subject, lens, logit, fitted, path)


def _contexts(subject: Subject, corpus: Path | None) -> TokenizedCorpus:
    texts = read_corpus(corpus)
    if isinstance(texts, TokenizedCorpus):
        return texts
    if subject.tokenizer is None:
        raise ValueRangeError(
            f"A corpus of texts needs a tokenizer; got the subject {subject.name!r} without one. "
            "Pass a .jsonl of token ids."
        )
    length = min(_CONTEXT_TOKENS, subject.context_tokens)
    return tokenize(texts, subject.tokenizer, context_tokens=length, progress=default_progress())


def _result(
    subject: Subject,
    lens: TunedLens | JacobianLens,
    logit: LensQuality,
    fitted: LensQuality,
    path: Path,
) -> LensTrainResult:
    before, after = logit.estimates("kl"), fitted.estimates("kl")
    gain = fitted.difference(logit, "kl")
    return {
        "schema_version": SCHEMA_VERSION,
        "lens": str(path),
        "picture": str(path.with_name(f"{path.stem}_kl.svg")),
        "subject": subject.name,
        "kind": lens.header.kind,
        "heldout_tokens": int(fitted.tokens.sum()),
        "heldout_documents": len(fitted.tokens),
        "layers": [
            {
                "layer": name,
                "kl_logit": jsonable(float(before.value[depth])),
                "kl": jsonable(float(after.value[depth])),
                "gain": jsonable(float(gain.value[depth])),
                "gain_low": jsonable(float(gain.low[depth])),
                "gain_high": jsonable(float(gain.high[depth])),
            }
            for depth, name in enumerate(fitted.depths)
        ],
        "provenance": cast(ProvenanceEntry, lens.header.provenance.as_json()),
    }


def trained_text(result: LensTrainResult) -> str:
    """KL by layer, with the interval of the difference."""
    lines = [
        f"{result['kind']} lens of {result['subject']}, KL from the final prediction in nats, on "
        f"{result['heldout_tokens']:,} held-out tokens of {result['heldout_documents']} documents",
        f"{'layer':<10} {'logit':>8} {result['kind']:>9}   difference, 95 % interval",
    ]
    for each in result["layers"]:
        interval = f"[{_number(each['gain_low'])}, {_number(each['gain_high'])}]"
        lines.append(
            f"{each['layer']:<10} {_number(each['kl_logit']):>8} {_number(each['kl']):>9}   "
            f"{_number(each['gain'])} {interval}"
        )
    return "\n".join(
        [*lines, f"The lens is at {result['lens']}, the picture at {result['picture']}"]
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _remove(folder: Path) -> None:
    """Take a checkpoint of ours away."""
    if folder.is_dir():
        for path in (*folder.glob("step_*.safetensors"), folder / "checkpoint.json"):
            path.unlink(missing_ok=True)
        folder.rmdir()
