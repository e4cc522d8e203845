"""`SkipTranscoder`: a dictionary from one site to another, beside a linear path around it.

Reference: Paulo, Shabalin, Belrose 2025, "Transcoders beat sparse autoencoders for
interpretability", arXiv:2501.18823.
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import ShapeError, ValueRangeError
from modelassay.decompositions.decomposition import Parts, check_width
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.sparsifiers import Sparsifier
from modelassay.subjects.site import Site

_PAPER = "paulo2025transcoders"


class SkipTranscoder(Dictionary):
    """``z = sparsify(x W_enc + b_enc)``, ``ŷ = z W_dec + b_dec + x W_skip``.

    `decode` sees codes alone and returns ``z W_dec + b_dec``: what the latents say. `skip` returns
    ``x W_skip``, and calling the transcoder returns their sum, which is the whole reconstruction.
    """

    def __init__(
        self,
        *,
        W_enc: Float[Tensor, "d_in width"],
        b_enc: Float[Tensor, " width"],
        W_dec: Float[Tensor, "width d_out"],
        b_dec: Float[Tensor, " d_out"],
        W_skip: Float[Tensor, "d_in d_out"],
        activation: Sparsifier,
        reads: Site | None = None,
        writes: Site | None = None,
        name: str | None = None,
        references: tuple[str, ...] = (),
    ) -> None:
        """Make a transcoder from copies of the given weights.

        Args:
            W_enc: encoder; it sees x, not ``x - b_dec``, which belongs to another site.
            b_enc: encoder bias.
            W_dec: decoder.
            b_dec: decoder bias.
            W_skip: the linear path from x to the reconstruction.
            activation: which pre-activations become latent values.
            reads: where the activations stand.
            writes: what the reconstructions stand for.
            name: for readers; made of the sparsifier and the width if None.
            references: keys of the papers; that of the skip connection is added.

        Raises:
            ShapeError: if the tensors do not fit each other.
            ValueRangeError: if it is to write what it reads: the skip connection alone could.
        """
        super().__init__(
            W_enc=W_enc,
            b_enc=b_enc,
            W_dec=W_dec,
            b_dec=b_dec,
            activation=activation,
            reads=reads,
            writes=writes,
            apply_b_dec_to_input=False,
            name=name,
            references=references,
        )
        if list(W_skip.shape) != [self.d_in, self.d_out]:
            raise ShapeError(
                f"W_skip must have the shape [d_in, d_out] = {[self.d_in, self.d_out]}; got "
                f"{list(W_skip.shape)}. Transpose it if it is the wrong way round."
            )
        if reads is not None and reads == writes:
            raise ValueRangeError(
                f"A skip transcoder must write another site than it reads; got {reads} twice. "
                "The identity would reconstruct it: use a dictionary without W_skip."
            )
        self.W_skip = nn.Parameter(W_skip.detach().clone())
        self.references = tuple(dict.fromkeys([*self.references, _PAPER]))
        if name is None:
            self.name = f"{self.name}, skip"

    @staticmethod
    def around(
        dictionary: Dictionary,
        W_skip: Float[Tensor, "d_in d_out"],
        *,
        name: str | None = None,
    ) -> "SkipTranscoder":
        """The same latents with a linear path beside them.

        Args:
            dictionary: a transcoder, whose encoder does not subtract `b_dec`.
            W_skip: the path.
            name: for readers; the dictionary's with a remark if None.

        Raises:
            ShapeError: if the path does not fit.
            ValueRangeError: if it is an autoencoder.
        """
        if dictionary.apply_b_dec_to_input:
            raise ValueRangeError(
                "A skip transcoder's encoder must see x itself; got one that sees x - b_dec. "
                "Fold it into the encoder's bias."
            )
        return SkipTranscoder(
            W_enc=dictionary.W_enc,
            b_enc=dictionary.b_enc,
            W_dec=dictionary.W_dec,
            b_dec=dictionary.b_dec,
            W_skip=W_skip,
            activation=dictionary.activation,
            reads=dictionary.reads,
            writes=dictionary.writes,
            name=name or f"{dictionary.name}, skip",
            references=dictionary.references,
        )

    def skip(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_out"]:
        """What passes around the latents: ``x W_skip``.

        Raises:
            ShapeError: if the width is not `d_in`.
        """
        check_width(x, self.d_in)
        return x.to(self.W_skip) @ self.W_skip

    def forward(self, x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token d_out"]:
        """The whole reconstruction: ``decode(encode(x)) + skip(x)``."""
        return super().forward(x) + self.skip(x)

    def parts(self) -> Parts:
        """What `save` writes."""
        parts = super().parts()
        tensors = parts.tensors | {"W_skip": self.W_skip.detach()}
        return replace(parts, kind="skip_transcoder", tensors=tensors)
