"""The work of `modelassay fit`."""

import itertools
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from modelassay.activations.harvest import Harvest, open_harvest
from modelassay.audit.storage import numbers
from modelassay.cli.options import Kind
from modelassay.cli.output import claim_folder
from modelassay.cli.recipes import recipe_of
from modelassay.cli.schemas import SCHEMA_VERSION, FitResult, ProvenanceEntry
from modelassay.core.errors import ValueRangeError
from modelassay.core.files import jsonable
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Dictionary, Recipe
from modelassay.evidence.documents import document_of_row
from modelassay.evidence.reconstruction import reconstruction
from modelassay.fitting.distributed.mesh import is_first_process, started_processes
from modelassay.fitting.fit import fit
from modelassay.fitting.options import TrainingOptions
from modelassay.subjects.site import Site

WRITTEN = ("config.json", "weights.safetensors", "log.csv", "checkpoint")

_HALF = tuple(f".{name}.*" for name in WRITTEN)
"""What a kill may leave of a file that was being written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One recipe, with what it is fitted by."""

    recipe: Recipe
    seed: int
    learning_rate: float | None
    label: str
    """What tells it from the other entries, as part of a folder's name."""


def every_entry(
    kind: Kind,
    *,
    widths: Sequence[int],
    ks: Sequence[int],
    learning_rates: Sequence[float],
    seeds: Sequence[int],
) -> list[Entry]:
    """Each combination of what the options name; the label says what there is more than one of.

    Raises:
        ValueRangeError: if two of them are the same.
    """
    entries: list[Entry] = []
    rates: Sequence[float | None] = learning_rates or [None]
    for width, k, rate, seed in itertools.product(widths, ks, rates, seeds):
        parts = [
            (widths, f"w{width}"),
            (ks, f"k{k}"),
            (rates, f"lr{rate}"),
            (seeds, f"seed{seed}"),
        ]
        label = "_".join(part for values, part in parts if len(values) > 1)
        recipe = recipe_of(kind, width=width, k=k)
        entries.append(Entry(recipe=recipe, seed=seed, learning_rate=rate, label=label))
    labels = [entry.label for entry in entries]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueRangeError(
                f"Each value of an option must be given once; got {label or 'one'} more often. "
                "Leave out what stands there twice."
            )
    return entries


def fit_stored(
    store: Path,
    entries: Sequence[Entry],
    *,
    sites: Sequence[str],
    tokens: int | None,
    options: TrainingOptions,
    latent_shards: int,
    out: Path,
    device: str,
    resume: bool,
    force: bool,
) -> list[FitResult] | None:
    """Fit dictionaries to stored activations on one pass; measure them on held-out documents.

    One dictionary is written to `out`; of several each has a folder in it. Of the processes that
    `torchrun` started, which fit together, the first writes and measures; the others have no
    result.
    """
    harvest = open_harvest(store)
    places = harvest.find_all(list(sites) or None)
    folders = _folders(out, places, entries)
    if is_first_process():
        inside = [folder.name for folder in folders if folder != out]
        claim_folder(out, ours=(*WRITTEN, *_HALF, *inside), force=force, resume=resume)
    together = started_processes() > 1 or latent_shards > 1
    rates = [entry.learning_rate for entry in entries if entry.learning_rate is not None]
    dictionaries = fit(
        [entry.recipe for entry in entries],
        harvest,
        site=list(places),
        tokens=tokens,
        learning_rate=rates or None,
        options=options,
        seed=[entry.seed for entry in entries],
        checkpoint=out / "checkpoint",
        resume=resume,
        log=out / "log.csv",
        device=device,
        latent_shards=latent_shards if together else None,
    )
    if not is_first_process():
        return None
    results = [
        _written(dictionary, harvest, folder, force=force or resume)
        for dictionary, folder in zip(dictionaries, folders, strict=True)
    ]
    shutil.rmtree(out / "checkpoint")
    for half, folder in itertools.product(_HALF, {out, *folders}):
        for left in folder.glob(half):
            left.unlink()
    return results


def _folders(out: Path, places: Sequence[Site], entries: Sequence[Entry]) -> list[Path]:
    """Where each dictionary goes: all entries of the first site, then those of the second."""
    names: list[str] = []
    for place in places:
        # A module port has a colon, which not every disk takes.
        site = re.sub(r"[^\w.-]", "-", str(place)) if len(places) > 1 else ""
        names += ["_".join(filter(None, (site, entry.label))) for entry in entries]
    return [out / name for name in names]


def _written(dictionary: Dictionary, harvest: Harvest, folder: Path, *, force: bool) -> FitResult:
    """Save a dictionary, and measure it on the held-out documents."""
    provenance = cast(Provenance, dictionary.provenance)
    heldout, place = harvest.select("heldout"), cast(Site, dictionary.reads)
    evidence = reconstruction(
        dictionary,
        heldout.activations(place).float(),
        document_of_row(heldout),
        derived(provenance.seed, "reconstruction"),
    )
    dictionary.save(folder, force=force)
    return {
        "schema_version": SCHEMA_VERSION,
        "directory": str(folder),
        "name": dictionary.name,
        "site": str(place),
        "width": dictionary.width,
        "evidence": {e.name: jsonable(numbers(e)) for e in evidence},
        "provenance": cast(ProvenanceEntry, provenance.as_json()),
    }
