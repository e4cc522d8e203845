"""Units and activations that `examples` and `contrast` are asked for on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from modelassay.activations.corpus import Corpus, TokenizedCorpus
from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.streaming import StreamedHarvest, stream_harvest
from modelassay.core.errors import CorruptFileError, ValueRangeError
from modelassay.core.files import read_tensors
from modelassay.core.progress import Progress
from modelassay.decompositions.formats.registry import read_dictionary
from modelassay.observe.exemplars.units import Units, coordinates, directions, latents
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_RAM = 2**29  # bytes: activations that take more are made twice instead of kept (ours)


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitChoice:
    """Which units, in the words of the command line."""

    dictionary: str | None
    directions: Path | None
    numbers: str
    """ "all", or such as "0:64,77"."""

    def what(self) -> str:
        """The units in a few words."""
        if self.dictionary is not None:
            return "Latents"
        return "Coordinates" if self.directions is None else "Directions"

    def units(self, source: Harvest | StreamedHarvest, site: Site) -> Units:
        """The units that read a site.

        Raises:
            ValueRangeError: if both a dictionary and directions are named, or no such units.
            CorruptFileError: if the file holds no directions of the site's width.
        """
        if self.dictionary is not None and self.directions is not None:
            raise ValueRangeError(
                "Units must be latents or directions; got --dictionary and --directions. Name one."
            )
        width = source.width(site)
        if self.dictionary is not None:
            decomposition = read_dictionary(self.dictionary)
            return latents(decomposition, self._chosen(decomposition.width))
        if self.directions is None:
            return coordinates(width, self._chosen(width))
        vectors, names = _read_directions(self.directions, width)
        chosen = self._chosen(len(vectors)) or list(range(len(vectors)))
        vectors = vectors[chosen]
        # Less the mean projection: a direction counts as active above its average.
        offsets = vectors @ source.moments(site).mean.to(vectors)
        return directions(vectors, names=[names[number] for number in chosen], offsets=offsets)

    def _chosen(self, available: int) -> list[int] | None:
        return None if self.numbers == "all" else parse_numbers(self.numbers, available)


def parse_numbers(text: str, available: int) -> list[int]:
    """Numbers as they are typed: "0:64", "3,7,12" or "0:4,9".

    Raises:
        ValueRangeError: if the text is none of these, or names a number that is not there.
    """
    chosen: list[int] = []
    for part in text.split(","):
        first, colon, last = part.strip().partition(":")
        if not all(end.isdecimal() for end in ((first, last) if colon else (first,)) if end):
            chosen = []
            break
        if not (first or colon):
            chosen = []
            break
        low = int(first or 0)
        chosen += range(low, int(last or available)) if colon else [low]
    chosen = list(dict.fromkeys(chosen))
    if not chosen or max(chosen) >= available:
        raise ValueRangeError(
            f"Units must be 'all' or numbers below {available}, such as 0:64,77; got {text!r}. "
            "Choose among these."
        )
    return chosen


def activations_of(
    subject: Subject,
    corpus: Corpus | TokenizedCorpus,
    site: Site,
    *,
    tokens: int | None,
    seed: int,
    progress: Progress,
) -> Harvest | StreamedHarvest:
    """Activations on a corpus: kept in RAM if they are few, else made whenever they are read."""
    streamed = stream_harvest(subject, corpus, site, tokens=tokens, seed=seed)
    if streamed.n_tokens * streamed.width(site) * 4 > _RAM:
        return streamed
    return harvest(subject, streamed.contexts, site, seed=seed, progress=progress)


def vocabulary_of(subject: Subject) -> tuple[str, ...]:
    """The text of every token."""
    return tuple(subject.token_strings(range(subject.vocab_size)))


def _read_directions(path: Path, width: int) -> tuple[torch.Tensor, Sequence[str]]:
    vectors: list[torch.Tensor] = []
    names: list[str] = []
    for name, tensor in read_tensors(path).items():
        if tensor.ndim not in (1, 2) or tensor.shape[-1] != width:
            continue
        rows = tensor.reshape(-1, width).float()
        vectors.append(rows)
        names += [name] if len(rows) == 1 else [f"{name} {number}" for number in range(len(rows))]
    if not vectors:
        raise CorruptFileError(
            f"{str(path)!r} must hold tensors of the site's width {width}; got none. Choose the "
            "file of directions of this site."
        )
    return torch.cat(vectors), names
