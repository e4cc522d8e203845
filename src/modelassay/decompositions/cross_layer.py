"""`CrossLayerTranscoder`: latents that read one layer and write to it and all later ones.

Reference: Ameisen et al. 2025, "Circuit tracing: revealing computational graphs in language
models", transformer-circuits.pub/2025/attribution-graphs/methods.html.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import NonFiniteError, ShapeError, UnknownNameError, ValueRangeError
from modelassay.core.provenance import Provenance
from modelassay.decompositions.codes import Codes, concatenate
from modelassay.decompositions.decoder_rows import DecoderRows
from modelassay.decompositions.decomposition import check_width
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.kernels import sparse_decode
from modelassay.decompositions.sparsifiers import Sparsifier
from modelassay.decompositions.transcoder import SkipTranscoder
from modelassay.subjects.site import Site

_CHUNK_ENTRIES = 2**22  # pre-activations or outputs held at once, 16 MiB in float32: ours


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """The latents that read one site."""

    reads: Site
    W_enc: Float[Tensor, "d_in width"]
    b_enc: Float[Tensor, " width"]
    activation: Sparsifier
    decoders: DecoderRows
    """To this source's own target and all later ones, in order: ``[width, target, d_out]``."""
    W_skip: Float[Tensor, "d_in d_out"] | None = None
    """A linear path from the site to the source's own target."""

    def __post_init__(self) -> None:
        d_in, width = self.W_enc.shape
        latents, _, d_out = self.decoders.shape
        skip = None if self.W_skip is None else list(self.W_skip.shape)
        if list(self.b_enc.shape) != [width] or latents != width or skip not in (
            None, [d_in, d_out],
        ):  # fmt: skip
            raise ShapeError(
                f"W_enc, b_enc, decoders and W_skip of {self.reads} must be [d_in, width], "
                "[width], [width, target, d_out] and [d_in, d_out]; got "
                f"{[d_in, width]}, {list(self.b_enc.shape)}, {list(self.decoders.shape)} and "
                f"{skip}. Transpose what is the wrong way round."
            )

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.W_enc.shape[1]

    @property
    def d_in(self) -> int:
        """Width of the activations that it encodes."""
        return self.W_enc.shape[0]

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "token d_in"]) -> Codes:
        """The latents' values, in bounded memory.

        Raises:
            ShapeError: if the width is not `d_in`.
            NonFiniteError: if there is a NaN or an infinity.
        """
        check_width(x, self.d_in)
        found: list[Codes] = []
        for chunk in x.split(max(1, _CHUNK_ENTRIES // self.width)):
            chunk = chunk.to(self.b_enc)
            if not bool(chunk.isfinite().all()):
                raise NonFiniteError(
                    f"Activations of {self.reads} must be finite; got NaN or Inf. "
                    "Look for an overflow in the model: run it in float32."
                )
            values, indices = self.activation.select(torch.addmm(self.b_enc, chunk, self.W_enc))
            found.append(Codes(indices=indices, values=values, width=self.width))
        return concatenate(found)


class CrossLayerTranscoder:
    """``z_l = sparsify_l(x_l W_enc_l + b_enc_l)``, ``ŷ_m = sum_{l <= m} z_l W_dec_lm + b_dec_m``.

    With skip connections, calling it adds ``x_m W_skip_m`` to ``ŷ_m``; `decode`, which sees codes
    alone, does not. It is no `Decomposition`, as it reads and writes many sites at once: `layer`
    gives the part of one source as a `Dictionary`.
    """

    provenance: Provenance | None
    """Where it was read from, where known."""

    def __init__(
        self,
        *,
        sources: Sequence[Source],
        writes: Sequence[Site],
        b_dec: Float[Tensor, "target d_out"],
        name: str | None = None,
        references: tuple[str, ...] = ("ameisen2025",),
    ) -> None:
        """Put the sources together.

        Args:
            sources: one for every layer, in order.
            writes: what the reconstructions stand for, one site for every source.
            b_dec: decoder bias of every target.
            name: for readers; made of the sizes if None.
            references: keys of the papers.

        Raises:
            ShapeError: if the tensors do not fit each other.
            ValueRangeError: if sites are not distinct or not as many as sources.
        """
        self.sources, self.writes, self.b_dec = tuple(sources), tuple(writes), b_dec
        self.references = references
        self.provenance = None
        reads = [source.reads for source in self.sources]
        if not reads or not len(reads) == len(set(reads)) == len(set(writes)) == len(writes):
            raise ValueRangeError(
                "A cross-layer transcoder must have as many sites to read as to write, all "
                f"distinct; got {[str(s) for s in reads]} and {[str(s) for s in writes]}. "
                "Pass one of each for every layer."
            )
        for first, source in enumerate(self.sources):
            wanted = [len(reads) - first, b_dec.shape[-1]]
            if list(source.decoders.shape[1:]) != wanted or b_dec.shape[0] != len(reads):
                raise ShapeError(
                    f"The decoders of {source.reads} must be [width, target, d_out] with "
                    f"[target, d_out] = {wanted}, its own target and all later ones; got "
                    f"{list(source.decoders.shape)} and b_dec {list(b_dec.shape)}. "
                    "Look for a missing layer."
                )
        width = sum(source.width for source in self.sources)
        self.name = name or f"Cross-layer transcoder {width}, {len(reads)} layers"

    @property
    def reads(self) -> tuple[Site, ...]:
        """The sites that it encodes, in order."""
        return tuple(source.reads for source in self.sources)

    def encode(self, x: Mapping[Site, Float[Tensor, "token d_in"]]) -> dict[Site, Codes]:
        """The latents' values for every source that is given.

        Raises:
            UnknownNameError: if a site is none that it reads.
            ShapeError: if a width is wrong.
            NonFiniteError: if there is a NaN or an infinity.
        """
        by_site = {source.reads: source for source in self.sources}
        for site in x:
            if site not in by_site:
                raise UnknownNameError("A site to encode", str(site), map(str, by_site))
        return {site: by_site[site].encode(activations) for site, activations in x.items()}

    @torch.no_grad()
    def decode(self, codes: Mapping[Site, Codes]) -> dict[Site, Float[Tensor, "token d_out"]]:
        """The reconstructions of all targets, without skip connections.

        Raises:
            ValueRangeError: if the codes of a source are missing, or differ in their tokens.
            ShapeError: if codes are of another width.
        """
        n_tokens = self._check_codes(codes)
        total = self.b_dec.unsqueeze(0).repeat(n_tokens, 1, 1)
        for first, source in enumerate(self.sources):
            found = codes[source.reads]
            active = found.indices[found.values != 0].unique()
            if not len(active):
                continue
            rows = source.decoders.rows(active).to(self.b_dec)
            # Empty slots may name latents whose rows were not read: any row does, at value 0.
            places = torch.searchsorted(active, found.indices).clamp(max=len(active) - 1)
            step = max(1, _CHUNK_ENTRIES // rows[0].numel())
            for start in range(0, n_tokens, step):
                part = slice(start, start + step)
                added = sparse_decode(found.values[part], places[part], rows.flatten(1))
                total[part, first:] += added.unflatten(1, (rows.shape[1], rows.shape[2]))
        return {site: total[:, m] for m, site in enumerate(self.writes)}

    def __call__(
        self, x: Mapping[Site, Float[Tensor, "token d_in"]]
    ) -> dict[Site, Float[Tensor, "token d_out"]]:
        """The reconstructions of all targets: ``decode(encode(x))`` and the skip connections.

        Raises:
            ValueRangeError: if the activations of a source are missing.
        """
        outputs = self.decode(self.encode(x))
        for source, target in zip(self.sources, self.writes, strict=True):
            if source.W_skip is not None:
                outputs[target] = outputs[target] + x[source.reads].to(self.b_dec) @ source.W_skip
        return outputs

    def layer(self, source: int, target: int | None = None) -> Dictionary:
        """One source's latents with their decoder to one target, as a dictionary.

        The reconstructions of a target are the sum of these over its sources: the bias and the
        skip connection are in that of its own layer, and all others have the bias 0.

        Args:
            source: which, from 0.
            target: which, from 0; the source's own if None.

        Raises:
            ValueRangeError: if there is no such source, or it does not write to the target.
        """
        target = source if target is None else target
        if not 0 <= source <= target < len(self.sources):
            raise ValueRangeError(
                f"A source must be one of {len(self.sources)} and its target no earlier; got "
                f"source {source} and target {target}. Count both from 0."
            )
        part, own = self.sources[source], source == target
        every = torch.arange(part.width, device=self.b_dec.device)
        dictionary = Dictionary(
            W_enc=part.W_enc,
            b_enc=part.b_enc,
            W_dec=part.decoders.rows(every)[:, target - source],
            b_dec=self.b_dec[target] if own else torch.zeros_like(self.b_dec[target]),
            activation=part.activation,
            reads=part.reads,
            writes=self.writes[target],
            apply_b_dec_to_input=False,
            name=f"{self.name}, {part.reads} to {self.writes[target]}",
            references=self.references,
        )
        if not own or part.W_skip is None:
            return dictionary
        return SkipTranscoder.around(dictionary, part.W_skip)

    def _check_codes(self, codes: Mapping[Site, Codes]) -> int:
        missing = [str(site) for site in self.reads if site not in codes]
        if missing or len(codes) > len(self.sources):
            raise ValueRangeError(
                f"Every source must be given and no other; got {[str(site) for site in codes]}, "
                f"without {missing}. The reconstruction of a layer is a sum over all before it."
            )
        counts = {codes[site].n_tokens for site in self.reads}
        if len(counts) > 1:
            raise ValueRangeError(
                f"All sources must have the same tokens; got {sorted(counts)}. Harvest together."
            )
        for source in self.sources:
            if codes[source.reads].width != source.width:
                raise ShapeError(
                    f"Codes of {source.reads} must have {source.width} latents; got "
                    f"{codes[source.reads].width}. Decode with the transcoder that made them."
                )
        return counts.pop()
