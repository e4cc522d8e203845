"""Trials on planted language models: the audit itself, run where it is known what is read.

A dictionary is fitted to the activations of a planted pair, its latents that are a planted feature
are labelled, and everything is measured of them in both arms, exactly as an audit measures it. What
is read in one arm is ignored in the other, so evidence that sees only activations scores the same
for a feature of the model and for one of the activations.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.activations.harvest import Harvest, harvest
from modelassay.audit.measure import Bench, measure
from modelassay.audit.rivals import TWINS
from modelassay.audit.settings import AuditSettings
from modelassay.audit.trials import Trial, values_of
from modelassay.audit.usual_metrics import (
    UsualMetric,
    cross_entropy_parts,
    detection_scores,
    explained_variance_parts,
    sparse_probing,
)
from modelassay.core.progress import Progress
from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.recipes import Recipe
from modelassay.evidence.activity import latent_activity
from modelassay.evidence.documents import document_of_row
from modelassay.evidence.evidence import Evidence
from modelassay.evidence.surrogate import gaussian_surrogate
from modelassay.evidence.visible import visible
from modelassay.explain.concepts.labels import ConceptLabels, concept_labels
from modelassay.fitting.fit import fit
from modelassay.subjects.null_twins import null_twin
from modelassay.subjects.subject import Subject
from modelassay.testbeds.planted.arms import PlantedPair, planted_arms
from modelassay.testbeds.planted.labels import LatentLabels, label_latents

_OTHERS = 128  # unlabelled latents judged beside the labelled ones (ours): see `_judged`
_VISIBLE_CONTEXTS = 96


@dataclass(frozen=True, kw_only=True, eq=False)
class PlantedTrials:
    """All trials of one planted pair."""

    trials: tuple[Trial, ...]
    n_features: int
    n_found: int
    """Planted features that a latent of the dictionary is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Study:
    """What both arms of a pair share."""

    pair: PlantedPair
    activations: Harvest
    first: Decomposition
    second: Decomposition
    twin_codes: dict[str, Codes]
    codes: Codes
    labels: LatentLabels
    concepts: ConceptLabels | None
    settings: AuditSettings
    seed: int
    progress: Progress


def planted_trials(
    subject: Subject,
    contexts: TokenizedCorpus,
    recipe: Recipe,
    *,
    seed: int,
    settings: AuditSettings,
    progress: Progress,
) -> PlantedTrials:
    """Plant features into a model, audit a dictionary of it, and keep what is known to be true.

    Args:
        subject: a verified Llama.
        contexts: with both sides of the split.
        recipe: of the dictionary.
        seed: of the planting and of the audit.
        settings: of the audit.
        progress: where to report.
    """
    pair = planted_arms(subject, contexts, seed=seed, progress=progress)
    activations = harvest(pair.subjects[0], contexts, pair.site, progress=progress)
    first, second = fit([recipe, recipe], activations, seed=[seed, seed + 1], progress=progress)
    heldout = activations.select("heldout")
    codes = first.encode(heldout.activations())
    study = _Study(
        pair=pair,
        activations=activations,
        first=first,
        second=second,
        twin_codes=_twin_codes(pair.subjects[0], activations, recipe, seed, progress),
        codes=codes,
        labels=label_latents(codes, pair, heldout.activations()),
        concepts=concept_labels(heldout.contexts),
        settings=settings,
        seed=seed,
        progress=progress,
    )
    trials = [trial for arm in (0, 1) for trial in _trials_of_arm(study, arm)]
    return PlantedTrials(
        trials=tuple(trials),
        n_features=len(pair.plan),
        n_found=len(study.labels.labelled),
    )


def _twin_codes(
    arm: Subject, activations: Harvest, recipe: Recipe, seed: int, progress: Progress
) -> dict[str, Codes]:
    """Codes of the null twins' dictionaries; up to the site both arms' twins are the same."""
    codes: dict[str, Codes] = {}
    for kind in TWINS:
        twin = null_twin(arm, kind, keep_embeddings=True, generator=derived(seed, "twin", kind))
        source = harvest(twin, activations.contexts, activations.sites[0], progress=progress)
        dictionary = fit(recipe, source, seed=seed, progress=progress)
        codes[kind] = dictionary.encode(source.select("heldout").activations())
    return codes


def _trials_of_arm(study: _Study, arm: int) -> list[Trial]:
    subject = study.pair.subjects[arm]
    activations = replace(
        study.activations,
        subject_name=subject.name,
        subject_fingerprint=subject.fingerprint(),
    )
    bench = Bench(
        subject=subject,
        fit=activations.select("fit"),
        heldout=activations.select("heldout"),
        twin_codes=study.twin_codes,
        settings=study.settings,
        seed=study.seed,
        progress=study.progress,
    )
    latents = _judged(study)
    measured = measure(bench, study.first, study.second, latents=latents, name="planted")
    evidence = (*measured.evidence, *_more_evidence(study, bench))
    labelled = study.labels.labelled
    usual = _usual_metrics(study, bench, labelled)
    return [
        Trial(
            testbed="planted",
            seed=study.seed,
            arm=f"arm {arm}",
            latent=latent,
            cluster=f"{study.seed}/{feature}",
            kind=study.pair.kind(feature, arm),
            of_model=bool(study.pair.read[arm, feature]),
            values=values_of(evidence, latent) | {m.name: float(m.values[number]) for m in usual},
            verdict=measured.judgement.verdicts[latent],
        )
        for number, latent in enumerate(labelled.tolist())
        for feature in [int(study.labels.feature[latent])]
    ]


def _judged(study: _Study) -> Int[Tensor, " chosen"]:
    """The labelled latents and some others: false discoveries are counted among many latents."""
    others = (study.labels.feature < 0).nonzero()[:, 0]
    order = torch.randperm(len(others), generator=derived(study.seed, "others"))
    return torch.cat([study.labels.labelled, others[order[:_OTHERS]]]).sort().values


def _more_evidence(study: _Study, bench: Bench) -> tuple[Evidence, ...]:
    """The latent-level evidence that an audit measures beside that of the verdict."""
    activations = bench.heldout.activations()
    visibility = visible(
        bench.subject,
        study.first,
        study.codes,
        bench.heldout,
        n_contexts=_VISIBLE_CONTEXTS,
        null_directions=study.settings.null_directions,
        generator=derived(study.seed, "visible"),
        progress=study.progress,
    )
    surrogate = gaussian_surrogate(activations, derived(study.seed, "surrogate"))
    activity = latent_activity(
        study.codes,
        study.first.encode(surrogate),
        document_of_row(bench.heldout),
        derived(study.seed, "activity"),
    )
    return (visibility.visible_variance, *activity)


def _usual_metrics(
    study: _Study, bench: Bench, latents: Int[Tensor, " chosen"]
) -> tuple[UsualMetric, ...]:
    def draws(purpose: str) -> torch.Generator:
        return derived(study.seed, purpose)

    found = [
        explained_variance_parts(study.first, study.codes, bench.heldout.activations(), latents),
        cross_entropy_parts(
            bench.subject, study.first, study.codes, bench.heldout, latents, draws("ce")
        ),
    ]
    if study.concepts is not None:
        for metric in (sparse_probing, detection_scores):
            found.append(
                metric(study.codes, bench.heldout, study.concepts, latents, draws("concepts"))
            )
    return tuple(found)
