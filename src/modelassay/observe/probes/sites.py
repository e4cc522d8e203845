"""`probe_sites`: a probe with all of its controls at several sites of one model."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from modelassay.core.progress import SILENT, Progress
from modelassay.core.randomness import derived
from modelassay.observe.probes.behaviour import Choices
from modelassay.observe.probes.causal import N_NULLS, causal_test
from modelassay.observe.probes.data import ProbeData, Split, train_test_items
from modelassay.observe.probes.items import ProbeItems, read_activations
from modelassay.observe.probes.probe import Probe, ProbeMethod
from modelassay.observe.probes.report import ProbeReport
from modelassay.observe.probes.study import Study, probe_report
from modelassay.subjects.null_twins import null_twin
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject


def probe_sites(
    subject: Subject,
    items: ProbeItems,
    sites: Sequence[Site | str],
    method: ProbeMethod,
    *,
    concept: str,
    choices: Choices | None = None,
    pool: str = "token",
    n_nulls: int = N_NULLS,
    most_causal: int = 120,
    study: Study | None = None,
    progress: Progress = SILENT,
) -> tuple[ProbeReport, ...]:
    """Probe a model at several sites, on the same split, with its embedding and its null twin.

    Args:
        choices: continuations that go with the classes, in the order of the items; with them the
            direction of a linear probe of two classes is tested causally.
        pool: "token" for the activation at the item, "mean" or "max" over the tokens up to it.
        most_causal: test items of the causal tests, of all classes together.

    Raises:
        UnknownNameError: for an unknown site.
        ValueRangeError: if there is one class only.
        TooFewTokensError: if there are too few groups to split.
    """
    study = study or Study()
    embedding = Site("resid_pre", 0) if subject.structure is not None else None
    resolved = tuple(dict.fromkeys(subject.resolve(site) for site in sites))
    read = [*resolved, *([embedding] if embedding is not None else [])]
    here = read_activations(subject, items, read, pool=pool)
    twin = null_twin(
        subject,
        "reinitialised",
        keep_embeddings=False,
        generator=derived(study.seed, "null twin"),
    )
    there = read_activations(twin, items, resolved, pool=pool)
    train, test = train_test_items(
        here[resolved[0]], derived(study.seed, "split"), test_share=study.test_share
    )

    def split_of(data: ProbeData) -> Split:
        return Split(train=data.take(train), test=data.take(test))

    chosen = _some(items.take(test), most_causal, study.seed)
    reports: list[ProbeReport] = []
    with progress.task("Probing", total=len(resolved), unit="sites") as task:
        for site in resolved:
            task.now(str(site))
            elsewhere = {"null twin": split_of(there[site])}
            if embedding is not None and site != embedding:
                elsewhere["embedding"] = split_of(here[embedding])
            split = split_of(here[site])
            probe = method.fit(split.train, derived(study.seed, "probe"))
            causal = None
            notes: tuple[str, ...] = ()
            if choices is not None and not _has_direction(probe):
                notes = (f"causal test: the probe at {site} has no direction",)
            elif choices is not None:
                causal = causal_test(
                    subject,
                    site,
                    probe.direction(),
                    split.train,
                    split.test.take(chosen),
                    choices.take(test[chosen]),
                    everywhere=pool != "token",
                    n_nulls=n_nulls,
                    seed=study.seed,
                )
            report = probe_report(
                method, split, subject=subject.name, site=str(site), concept=concept,
                elsewhere=elsewhere, causal=causal, probe=probe, study=study, notes=notes,
            )  # fmt: skip
            reports.append(report)
            task.advance(1)
    return tuple(reports)


def _has_direction(probe: Probe) -> bool:
    """Whether it is linear in one activation, of two classes, and found anything at all."""
    covector = probe.head.covector()
    return covector is not None and bool(covector.norm() > 0)


def _some(items: ProbeItems, most: int, seed: int) -> Int[Tensor, " item"]:
    """At most so many items, drawn at random, in order."""
    order = torch.randperm(len(items), generator=derived(seed, "causal items"))
    return order[:most].sort().values
