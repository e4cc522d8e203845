"""The work of `modelassay fit`."""

import shutil
from pathlib import Path
from typing import cast

from modelassay.activations.harvest import open_harvest
from modelassay.audit.storage import numbers
from modelassay.cli.output import claim_folder
from modelassay.cli.schemas import SCHEMA_VERSION, FitResult, ProvenanceEntry
from modelassay.core.files import jsonable
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Recipe
from modelassay.evidence.documents import document_of_row
from modelassay.evidence.reconstruction import reconstruction
from modelassay.fitting.distributed.mesh import is_first_process, started_processes
from modelassay.fitting.fit import fit
from modelassay.fitting.options import TrainingOptions

WRITTEN = ("config.json", "weights.safetensors", "log.csv", "checkpoint")


def fit_stored(
    store: Path,
    recipe: Recipe,
    *,
    site: str | None,
    tokens: int | None,
    learning_rate: float | None,
    options: TrainingOptions,
    latent_shards: int,
    out: Path,
    seed: int,
    device: str,
    resume: bool,
    force: bool,
) -> FitResult | None:
    """Fit a dictionary to stored activations, and measure it on the held-out documents.

    Of the processes that `torchrun` started, which fit together, the first writes and measures;
    the others have no result.
    """
    harvest = open_harvest(store)
    place = harvest.find(site)
    if is_first_process():
        claim_folder(out, ours=WRITTEN, force=force, resume=resume)
    together = started_processes() > 1 or latent_shards > 1
    dictionary = fit(
        recipe,
        harvest,
        site=place,
        tokens=tokens,
        learning_rate=learning_rate,
        options=options,
        seed=seed,
        checkpoint=out / "checkpoint",
        resume=resume,
        log=out / "log.csv",
        device=device,
        latent_shards=latent_shards if together else None,
    )
    if not is_first_process():
        return None
    heldout = harvest.select("heldout")
    evidence = reconstruction(
        dictionary,
        heldout.activations(place).float(),
        document_of_row(heldout),
        derived(seed, "reconstruction"),
    )
    dictionary.save(out, force=force or resume)
    shutil.rmtree(out / "checkpoint")
    provenance = dictionary.provenance or Provenance.collect(seed=seed, device=device)
    return {
        "schema_version": SCHEMA_VERSION,
        "directory": str(out),
        "name": dictionary.name,
        "site": str(place),
        "width": dictionary.width,
        "evidence": {e.name: jsonable(numbers(e)) for e in evidence},
        "provenance": cast(ProvenanceEntry, provenance.as_json()),
    }
