"""Activations without a store: the model runs while they are used."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import Corpus, Split, TokenizedCorpus
from modelassay.activations.forward import ForwardPass
from modelassay.activations.source import ActivationSource, place_in
from modelassay.activations.statistics import Moments
from modelassay.activations.stream import ActivationStream, Blocks
from modelassay.core.randomness import derived
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject

_MOMENT_TOKENS = 2**18  # ours: the mean's error is then 1/512 of a standard deviation


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamedHarvest(ActivationSource):
    """A harvest that keeps nothing: each epoch runs the model again, a buffer at a time.

    It streams and has moments as a `Harvest` does, so that `fit` takes either. Random contexts
    fill a buffer, which is permuted and dealt out.
    """

    contexts: TokenizedCorpus
    sites: tuple[Site, ...]
    subject_name: str
    subject_fingerprint: str
    run: ForwardPass
    """The pass over these contexts."""
    buffer_tokens: int
    """Rows that are mixed: many times a batch and many contexts, in RAM twice."""
    _moments: dict[Site, Moments] = field(default_factory=dict, init=False, repr=False)

    def width(self, site: Site | str | None = None) -> int:
        """Columns of a site's activation matrix."""
        return self.run.widths[self.find(site)]

    @property
    def n_tokens(self) -> int:
        """Rows of a pass over the contexts."""
        return self.contexts.n_tokens

    @property
    def origin(self) -> str:
        """Where the corpus came from."""
        return self.contexts.corpus.source

    def select(self, split: Split) -> "StreamedHarvest":
        """Only the documents on one side of the split.

        Raises:
            TooFewTokensError: if the corpus has no document there.
        """
        contexts = self.contexts.select(split)
        return replace(self, contexts=contexts, run=replace(self.run, contexts=contexts))

    def moments(self, site: Site | str | None = None) -> Moments:
        """Mean, covariance and norm over random contexts of about 262,144 tokens; run once."""
        return self.joint_moments([self.find(site)])[0]

    def joint_moments(self, sites: Sequence[Site], *, finite_only: bool = False) -> list[Moments]:
        """The moments of several sites, from one run over those contexts."""
        found = {} if finite_only else dict(self._moments)
        wanted = [site for site in sites if site not in found]
        if wanted:
            of = Moments.of_finite if finite_only else Moments.of
            some = self.contexts.take(_MOMENT_TOKENS, derived(0, "moments"))
            batches = replace(self.run, contexts=some).rows(
                torch.arange(len(some)), wanted, refuse_non_finite=not finite_only
            )
            found |= {site: Moments.zero(self.width(site)) for site in wanted}
            for batch in batches:
                for site in wanted:
                    found[site] += of(batch[site])
            if not finite_only:
                self._moments.update(found)
        return [found[site] for site in sites]

    def place_of(self, row: int) -> str:
        """Context, token and document of a row."""
        return place_in(self.contexts, row)

    def stream(
        self,
        site: Site | str | None = None,
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
    ) -> ActivationStream:
        """The site's activations in random order: see `ActivationStream`."""
        return self.joint_stream(
            [self.find(site)], batch_tokens=batch_tokens, generator=generator, epochs=epochs
        )

    def joint_stream(
        self,
        sites: Sequence[Site],
        *,
        batch_tokens: int,
        generator: torch.Generator,
        epochs: int | None = None,
        refuse_non_finite: bool = True,
    ) -> ActivationStream:
        """Several sites in one random order, side by side; the model runs once for all."""
        blocks = _ContextBlocks(
            run=self.run,
            sites=tuple(map(self.find, sites)),
            buffer_tokens=self.buffer_tokens,
            refuse_non_finite=refuse_non_finite,
        )
        return ActivationStream(
            blocks, batch_tokens=batch_tokens, generator=generator, epochs=epochs
        )


def stream_harvest(
    subject: Subject,
    corpus: Corpus | TokenizedCorpus,
    sites: Site | str | Sequence[Site | str],
    *,
    tokens: int | None = None,
    batch_contexts: int = 32,
    buffer_tokens: int = 2**18,
    dtype: torch.dtype = torch.float32,
    context_tokens: int | None = None,
    seed: int = 0,
) -> StreamedHarvest:
    """Activations of some sites, made while they are used; the arguments are those of `harvest`.

    Args:
        buffer_tokens: activations that are mixed at a time; more mixes better and takes more RAM.

    Raises:
        NonFiniteError: later, if an activation is NaN or infinite.
    """
    run = ForwardPass.plan(
        subject,
        corpus,
        sites,
        tokens=tokens,
        context_tokens=context_tokens,
        batch_contexts=batch_contexts,
        dtype=dtype,
        seed=seed,
    )
    return StreamedHarvest(
        contexts=run.contexts,
        sites=run.sites,
        subject_name=subject.name,
        subject_fingerprint=subject.fingerprint(),
        run=run,
        buffer_tokens=buffer_tokens,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _ContextBlocks(Blocks):
    """The measured tokens of a context are a block; loading it runs the model."""

    run: ForwardPass
    sites: tuple[Site, ...]
    buffer_tokens: int
    refuse_non_finite: bool
    # The model is used by others too, and a thread's hooks would reach into their runs.
    ahead = False

    @property
    def sizes(self) -> Int[Tensor, " block"]:
        """Measured tokens of each context."""
        return self.run.contexts.measured.sum(1)

    def load(
        self, blocks: Int[Tensor, " picked"], generator: torch.Generator
    ) -> Float[Tensor, "token width"]:
        """All measured rows of the given contexts, in random order."""
        loaded = torch.cat(
            [
                torch.cat([rows[site] for site in self.sites], dim=1)
                for rows in self.run.rows(
                    blocks, self.sites, refuse_non_finite=self.refuse_non_finite
                )
            ]
        )
        return loaded.index_select(0, torch.randperm(len(loaded), generator=generator))

    def rows(
        self, blocks: Int[Tensor, " picked"], generator: torch.Generator
    ) -> Int[Tensor, " token"]:
        """The numbers of those rows among all measured ones."""
        sizes = self.sizes
        starts = sizes.cumsum(0) - sizes
        numbers = [
            torch.arange(int(starts[block]), int(starts[block] + sizes[block]))
            for block in blocks.tolist()
        ]
        if not numbers:
            return torch.zeros(0, dtype=torch.int64)
        joined = torch.cat(numbers)
        return joined[torch.randperm(len(joined), generator=generator)]
