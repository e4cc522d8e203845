"""The rows that `quality` gives to all libraries: a file of float32, and how fast it was made."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from modelassay.activations.harvest import harvest
from modelassay.activations.stdlib import stdlib_corpus
from modelassay.core.progress import SILENT
from modelassay.core.randomness import derived
from modelassay.subjects.load import load_subject
from modelassay.subjects.site import Site

HELDOUT_TOKENS = 32_768


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A file with ``fit`` and ``heldout``, in random order."""

    path: str
    d: int
    n_fit: int
    site: str
    tokens_per_second: float
    """Of the harvest that made it, reading nothing past the site."""


def activations(folder: Path, tokens: int) -> Rows:
    """The bundled model's middle residual site, harvested once into the folder.

    Args:
        folder: kept between runs.
        tokens: distinct ones wanted for training; the corpus may hold fewer.
    """
    record, path = folder / f"rows_{tokens}.json", folder / f"rows_{tokens}.safetensors"
    if record.is_file() and path.is_file():
        return Rows(**json.loads(record.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    subject = load_subject("bundled")
    site = Site("resid_post", subject.n_layers // 2 - 1)
    begin = time.perf_counter()
    held = harvest(
        subject, stdlib_corpus(), site, tokens=tokens + 4 * HELDOUT_TOKENS, progress=SILENT
    )
    rate = held.n_tokens / (time.perf_counter() - begin)
    tensors: dict[str, torch.Tensor] = {}
    for side, wanted in (("fit", tokens), ("heldout", HELDOUT_TOKENS)):
        source = held.select(side)
        n = min(wanted, source.n_tokens)
        stream = source.stream(
            site, batch_tokens=n, generator=derived(0, f"order {side}"), epochs=1
        )
        tensors[side] = next(stream).float().contiguous()
    save_file(tensors, path)
    rows = Rows(
        path=str(path.resolve()),
        d=tensors["fit"].shape[1],
        n_fit=len(tensors["fit"]),
        site=str(site),
        tokens_per_second=rate,
    )
    record.write_text(json.dumps(asdict(rows)))
    return rows
