"""The audit itself: from a subject, a decomposition and a harvest to passports."""

from dataclasses import asdict

import torch
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.harvest import Harvest
from modelassay.audit.details import details_of
from modelassay.audit.measure import Bench, Measured, measure, sample_of_latents
from modelassay.audit.parts import ReconstructionRow, VarianceMap, verdict_shares
from modelassay.audit.result import Audit
from modelassay.audit.rivals import Rivals, fit_rivals, recipe_like
from modelassay.audit.settings import AuditSettings
from modelassay.audit.verdict import THRESHOLDS
from modelassay.core.errors import ProvenanceError, ShapeError, TooFewTokensError
from modelassay.core.progress import Progress, default_progress
from modelassay.core.provenance import Provenance, hash_tensors
from modelassay.core.randomness import derived
from modelassay.decompositions.decomposition import Decomposition
from modelassay.evidence.activity import latent_activity
from modelassay.evidence.documents import document_of_row
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.reconstruction import reconstruction
from modelassay.evidence.recovered import loss_recovered
from modelassay.evidence.surrogate import gaussian_surrogate
from modelassay.evidence.visible import Visibility, visible
from modelassay.subjects.subject import Subject

MIN_HELDOUT_TOKENS = 2000
"""With fewer, hardly any sparse latent reaches the firings that a claim needs (ours)."""


def audit(
    subject: Subject,
    dictionary: Decomposition,
    harvest: Harvest,
    *,
    settings: AuditSettings | None = None,
    rivals: Rivals | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Say which latents are features of the model, with the evidence for it.

    Fits what the decomposition is compared with (a second seed, dictionaries on null twins, a
    frozen decoder) unless `rivals` are given, measures every latent on held-out documents, and
    applies the rule of `modelassay.audit.verdict`.

    Args:
        dictionary: reads and writes the harvest's first site.
        harvest: activations of this subject, with both sides of the split.
        settings: sample sizes.
        rivals: what to compare with, if fitted before.
        seed: of every random draw, and the second seed is `seed + 1`.

    Raises:
        ProvenanceError: if the harvest comes from another model.
        ShapeError: if the decomposition is of another width than the site.
        TooFewTokensError: if fewer than `MIN_HELDOUT_TOKENS` tokens are held out.
    """
    check(subject, dictionary, harvest)
    settings = settings or AuditSettings()
    progress = progress or default_progress()
    site = harvest.sites[0]
    heldout = harvest.select("heldout")
    activations = heldout.activations(site)
    if rivals is None:
        recipe = recipe_like(dictionary, dictionary.encode(activations))
        rivals = fit_rivals(subject, harvest, recipe, seed=seed, progress=progress)
    bench = Bench(
        subject=subject,
        fit=harvest.select("fit"),
        heldout=heldout,
        twin_codes=rivals.twin_codes,
        settings=settings,
        seed=seed,
        progress=progress,
    )
    everything = torch.arange(dictionary.width)
    measured = measure(bench, dictionary, rivals.second_seed, latents=everything, name="dictionary")
    visibility = visible(
        subject,
        dictionary,
        measured.codes,
        heldout,
        n_contexts=_contexts_holding(settings.visible_tokens, heldout),
        null_directions=settings.null_directions,
        generator=derived(seed, "visible"),
        progress=progress,
    )
    decompositions = {dictionary.name: dictionary}
    decompositions |= {name: pair.first for name, pair in rivals.baselines.items()}
    return Audit(
        subject=subject.name,
        site=str(site),
        dictionary=dictionary.name,
        width=dictionary.width,
        d_model=dictionary.d_in,
        verdicts=measured.judgement.verdicts,
        reasons=measured.judgement.reasons,
        answers=measured.judgement.answers,
        latent_evidence=_latent_evidence(bench, dictionary, measured, visibility, activations),
        reconstruction=tuple(
            _reconstruction_row(bench, name, decomposition)
            for name, decomposition in decompositions.items()
        ),
        baselines=_baseline_shares(bench, rivals),
        variance=VarianceMap(
            euclidean=visibility.euclidean,
            fisher=visibility.fisher,
            null_euclidean=visibility.null_euclidean,
            null_fisher=visibility.null_fisher,
            null_kind=visibility.null_kind,
        ),
        details=details_of(bench, dictionary, measured.codes),
        vocabulary=tuple(subject.token_strings(range(subject.vocab_size))),
        thresholds=THRESHOLDS,
        provenance=_provenance(bench, dictionary, harvest),
    )


def check(subject: Subject, dictionary: Decomposition, harvest: Harvest) -> None:
    """Refuse what does not belong together, before any work is done.

    Raises:
        ProvenanceError, ShapeError, TooFewTokensError: see `audit`.
    """
    if harvest.subject_fingerprint != subject.fingerprint():
        raise ProvenanceError(
            f"The harvest must come from the audited model ({subject.fingerprint()}); got one of "
            f"{harvest.subject_name} ({harvest.subject_fingerprint}). Harvest this model."
        )
    site = harvest.sites[0]
    if dictionary.d_in != harvest.width(site):
        raise ShapeError(
            f"The dictionary must read activations of width {harvest.width(site)} ({site}); got "
            f"one of width {dictionary.d_in}. Choose the site that it was trained on."
        )
    check_tokens(harvest.contexts)


def check_tokens(contexts: TokenizedCorpus) -> None:
    """Refuse a corpus that is too small for any claim.

    Raises:
        TooFewTokensError: if fewer than `MIN_HELDOUT_TOKENS` tokens are held out.
    """
    n_heldout = contexts.select("heldout").n_tokens
    if n_heldout < MIN_HELDOUT_TOKENS:
        raise TooFewTokensError(
            f"An audit needs at least {MIN_HELDOUT_TOKENS:,} held-out tokens; got {n_heldout:,}. "
            "Raise --tokens or give a larger corpus."
        )


def _latent_evidence(
    bench: Bench,
    dictionary: Decomposition,
    measured: Measured,
    visibility: Visibility,
    activations: Tensor,
) -> tuple[Evidence, ...]:
    surrogate = gaussian_surrogate(activations, derived(bench.seed, "surrogate"))
    activity = latent_activity(
        measured.codes,
        dictionary.encode(surrogate),
        document_of_row(bench.heldout),
        derived(bench.seed, "activity"),
    )
    return (*measured.evidence, visibility.visible_variance, *activity)


def _reconstruction_row(bench: Bench, name: str, decomposition: Decomposition) -> ReconstructionRow:
    site = bench.heldout.sites[0]
    activations = bench.heldout.activations(site)
    whole = reconstruction(
        decomposition,
        activations,
        document_of_row(bench.heldout),
        derived(bench.seed, name, "reconstruction"),
    )
    chosen = sample_of_latents(
        len(bench.heldout.contexts),
        _contexts_holding(bench.settings.recovered_tokens, bench.heldout),
        derived(bench.seed, "recovered contexts"),
    )
    recovered = loss_recovered(
        bench.subject,
        decomposition,
        bench.heldout.contexts[chosen],
        reference=activations,
        generator=derived(bench.seed, name, "recovered"),
        progress=bench.progress,
    )
    return ReconstructionRow(name=name, evidence=(*whole, *recovered.values()))


def _contexts_holding(n_tokens: int, harvest: Harvest) -> int:
    """How many contexts hold about so many measured tokens."""
    return min(len(harvest.contexts), -(-n_tokens * len(harvest.contexts) // harvest.n_tokens))


def _baseline_shares(bench: Bench, rivals: Rivals) -> dict[str, dict[str, float]]:
    """Verdict shares of each baseline, on a random sample of its latents."""
    shares: dict[str, dict[str, float]] = {}
    for name, pair in rivals.baselines.items():
        latents = sample_of_latents(
            pair.first.width, bench.settings.baseline_latents, derived(bench.seed, name, "sample")
        )
        judged = measure(bench, pair.first, pair.second, latents=latents, name=name).judgement
        shares[name] = verdict_shares(tuple(judged.verdicts[i] for i in latents.tolist()))
    return shares


def _provenance(bench: Bench, dictionary: Decomposition, harvest: Harvest) -> Provenance:
    subject, contexts = bench.subject, harvest.contexts
    return Provenance.collect(
        seed=bench.seed,
        device=str(subject.device),
        subject=subject.name,
        subject_weights=subject.fingerprint(),
        corpus=contexts.corpus.source,
        corpus_fingerprint=contexts.fingerprint(),
        documents=len(contexts.document.unique()),
        heldout_documents=len(bench.heldout.contexts.document.unique()),
        context_tokens=contexts.tokens.shape[1],
        fit_tokens=bench.fit.n_tokens,
        heldout_tokens=bench.heldout.n_tokens,
        dictionary=dictionary.name,
        dictionary_weights=hash_tensors(
            {"directions": dictionary.directions, "bias": dictionary.bias}
        ),
        **asdict(bench.settings),
    )
