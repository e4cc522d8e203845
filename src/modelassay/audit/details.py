"""What a reader looks at to understand a latent: examples, tokens, concepts, neighbours."""

import torch

from modelassay.audit.measure import Bench
from modelassay.audit.parts import Concepts, LatentDetails
from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.explain.concept_match import match_concepts
from modelassay.explain.concepts.labels import concept_labels
from modelassay.geometry.neighbours import nearest_neighbours
from modelassay.observe.exemplars import activation_histogram, find_examples
from modelassay.observe.logit_attribution import LogitAttribution, logit_attribution
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def details_of(bench: Bench, decomposition: Decomposition, codes: Codes) -> LatentDetails:
    """Gather the details of all latents on the held-out documents.

    Args:
        codes: the decomposition's held-out codes.
    """
    contexts = bench.heldout.contexts
    examples = find_examples(codes, contexts, derived(bench.seed, "examples"))
    histogram = activation_histogram(codes)
    effects = _direct_effects(bench.subject, decomposition, bench.heldout.sites[0])
    near = nearest_neighbours(decomposition.directions, derived(bench.seed, "neighbours"))
    return LatentDetails(
        examples=examples,
        histogram_counts=histogram.counts,
        histogram_edges=histogram.edges,
        promoted=effects.promoted,
        promoted_logits=effects.promoted_logits,
        suppressed=effects.suppressed,
        suppressed_logits=effects.suppressed_logits,
        neighbours=near.indices,
        neighbour_cosines=near.cosines,
        neighbour_null=near.null,
        concepts=_concepts(bench, codes),
    )


def _direct_effects(subject: Subject, decomposition: Decomposition, site: Site) -> LogitAttribution:
    """Promoted and suppressed tokens; none for directions outside the residual stream."""
    if site.role in _RESIDUAL:
        return logit_attribution(subject, decomposition.directions)
    ids = torch.zeros(decomposition.width, 0, dtype=torch.int64)
    logits = torch.zeros(decomposition.width, 0)
    return LogitAttribution(
        promoted=ids, promoted_logits=logits, suppressed=ids, suppressed_logits=logits
    )


def _concepts(bench: Bench, codes: Codes) -> Concepts | None:
    contexts = bench.heldout.contexts
    matches = match_concepts(
        codes, contexts, concept_labels(contexts), derived(bench.seed, "concepts")
    )
    if matches is None:
        return None
    return Concepts(
        names=matches.names,
        descriptions=matches.descriptions,
        indices=matches.indices,
        f1=matches.f1,
        low=matches.low,
        high=matches.high,
        null_f1=matches.null_f1,
    )
