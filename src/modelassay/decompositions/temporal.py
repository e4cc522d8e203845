"""`TemporalDictionary`: codes that say what the context predicts, and codes of what is new."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from modelassay.core.errors import NonFiniteError, ShapeError, ValueRangeError
from modelassay.core.provenance import Provenance
from modelassay.decompositions.batch import EncoderBatch
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.folder import Saved, write_folder
from modelassay.decompositions.kernels import sparse_decode
from modelassay.decompositions.sparsifier import BatchSparsifier, Sparsifier
from modelassay.decompositions.temporal_attention import ContextAttention
from modelassay.subjects.site import Site

_EPSILON = 1e-6  # the reference's, added to a direction's length
KIND = "temporal_dictionary"
"""What a folder with one says that it holds."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TemporalCodes:
    """What the latents say of some contexts."""

    predicted: Float[Tensor, "context token width"]
    """What earlier tokens predict; dense, and negative where a prediction had the wrong sign."""
    novel: Codes
    """What they do not; one row a token, context after context."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """Some contexts taken apart, differentiably and in the dictionary's scaled units."""

    predicted: Float[Tensor, "context token width"]
    """Codes."""
    novel: EncoderBatch
    """What the prediction leaves of all tokens, context after context, in front of the encoder."""


@final
class TemporalDictionary(nn.Module):
    """Splits every token into what its context predicts and what is new.

    With ``r = input_scale x - b_dec`` and ``λ = 1 / (4 d)``, each attention layer predicts a
    direction p and takes the token's projection on it away:

        z = relu(λ r W_enc),   c = relu(attention(z, earlier z)),   p = c W_dec,
        s = p·r / (|p| + 1e-6)²,   r ← r - s p,   predicted ← predicted + s c.

    What is left is coded as in any sparse dictionary, ``novel = sparsify(λ r W_enc)``, and

        x̂ = ((predicted + novel) W_dec + b_dec) / input_scale.

    How long a token's predicted part is comes from the token itself, by s; only its direction
    comes from the context. It is no `Decomposition`: a token's code is a function of its context,
    and rows in random order have none. With tied weights ``W_enc = W_decᵀ``.

    Reference: Lubana et al. 2025, "Priors in time: missing inductive biases for language model
    interpretability", section 5. The formulas are those of their code, as SAELens states it.
    """

    references: tuple[str, ...] = ("lubana2025",)
    subject_fingerprint: str | None = None
    """Weights' hash of the subject that it was fitted on, where known; kept when saved."""
    provenance: Provenance | None = None
    """How it was made, where known; kept when saved."""

    def __init__(
        self,
        *,
        W_dec: Float[Tensor, "width d"],
        b_dec: Float[Tensor, " d"],
        W_enc: Float[Tensor, "_ _"] | None = None,
        activation: Sparsifier,
        layers: int = 1,
        heads: int = 8,
        bottleneck: int = 64,
        input_scale: float = 1.0,
        site: Site | None = None,
        name: str | None = None,
    ) -> None:
        """Make a dictionary from copies of the given weights; its attention's are all zero.

        Args:
            W_dec: decoder, of scaled activations.
            b_dec: decoder bias, of scaled activations.
            W_enc: encoder [d, width]; None for the decoder's transpose.
            activation: which pre-activations of the residual become novel codes.
            layers: attention layers.
            heads: of each layer.
            bottleneck: width of the dictionary over that of all queries or keys.
            input_scale: factor under which activations are taken apart. It cannot be folded into
                tied weights.
            site: where the activations stand.
            name: for readers; made of the sparsifier and the width if None.

        Raises:
            ShapeError: if the tensors do not fit each other.
            ValueRangeError: if the width cannot be divided among the heads, there are no layers,
                the scale is not positive, or the sparsifier compares tokens.
        """
        super().__init__()
        width, d = W_dec.shape
        encoder = [d, width] if W_enc is None else list(W_enc.shape)
        if list(b_dec.shape) != [d] or encoder != [d, width]:
            raise ShapeError(
                "W_dec, b_dec and W_enc must have the shapes [width, d], [d] and [d, width]; got "
                f"{list(W_dec.shape)}, {list(b_dec.shape)} and {encoder}. "
                "Transpose what is the wrong way round."
            )
        if layers < 1 or not 0 < input_scale < float("inf"):
            raise ValueRangeError(
                f"layers and input_scale must be above 0; got {layers} and {input_scale}. "
                "Use one layer, and one over the activations' mean norm."
            )
        if isinstance(activation, BatchSparsifier):
            raise ValueRangeError(
                "A temporal dictionary's sparsifier must look at each token alone; got "
                f"{activation.label}. Use TopK or ReLU."
            )
        self.W_dec = nn.Parameter(W_dec.detach().clone())
        self.b_dec = nn.Parameter(b_dec.detach().clone())
        # Columns contiguous in memory, as in `Dictionary`.
        own = None if W_enc is None else W_enc.detach().t().contiguous().clone().t()
        self.W_enc = None if own is None else nn.Parameter(own)
        self.activation = activation
        attention = [
            ContextAttention(width, heads=heads, bottleneck=bottleneck) for _ in range(layers)
        ]
        self.attn_layers = nn.ModuleList(attention).to(W_dec)
        self.heads, self.bottleneck, self.input_scale = heads, bottleneck, input_scale
        self.reads = self.writes = site
        self.name = name or f"Temporal {activation.label} {width}"

    @property
    def width(self) -> int:
        """Number of latents."""
        return self.W_dec.shape[0]

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return self.W_dec.shape[1]

    @property
    def tied(self) -> bool:
        """Whether the encoder is the decoder's transpose."""
        return self.W_enc is None

    @property
    def directions(self) -> Float[Tensor, "latent d"]:
        """What one unit of each latent adds to the reconstruction, of either kind of code."""
        return self.W_dec.detach() / self.input_scale

    @property
    def bias(self) -> Float[Tensor, " d"]:
        """The reconstruction when no latent is active."""
        return self.b_dec.detach() / self.input_scale

    def split(self, scaled: Float[Tensor, "context token d"]) -> Split:
        """Take scaled activations apart, with gradients.

        Args:
            scaled: ``input_scale`` times activations, finite; padding stands at the end.
        """
        residual = scaled - self.b_dec
        W_enc = self.W_dec.t() if self.W_enc is None else self.W_enc
        rate = 1 / (4 * self.d_in)
        predicted = scaled.new_zeros(*scaled.shape[:2], self.width)
        for attention in self.attn_layers:
            codes = attention(F.relu(rate * residual @ W_enc)).relu()
            direction = codes @ self.W_dec
            length = torch.linalg.vector_norm(direction, dim=2, keepdim=True) + _EPSILON
            share = (direction * residual).sum(2, keepdim=True) / length.square()
            predicted = predicted + share * codes
            residual = residual - share * direction
        rows = rate * residual.flatten(0, 1)
        novel = EncoderBatch(x=rows, W_enc=W_enc, b_enc=W_enc.new_zeros(self.width))
        return Split(predicted=predicted, novel=novel)

    @torch.no_grad()
    def encode_contexts(
        self,
        x: Float[Tensor, "*context token d"],
        mask: Bool[Tensor, "_ _"] | None = None,
    ) -> TemporalCodes:
        """The codes of some contexts, without gradients.

        A token's codes depend on it and on earlier tokens of its context, on nothing else. Of a
        context's first token nothing is known: biases of the attention alone predict it.

        Args:
            x: activations [context, token, d] in the model's own units, the tokens of each context
                in their order.
            mask: which tokens [context, token] are there, the first ones of each context; None for
                all. The codes of the others are 0.

        Raises:
            ShapeError: if the shapes are others, as for rows without a context.
            ValueRangeError: if a token follows padding.
            NonFiniteError: if there is a NaN or an infinity.
        """
        x, mask = self._checked(x, mask)
        found = self.split(self.input_scale * x)
        values, indices = self.activation.select(found.novel.pre_activations())
        values = values * mask.flatten().unsqueeze(1)
        novel = Codes(indices=indices, values=values, width=self.width)
        return TemporalCodes(predicted=found.predicted * mask.unsqueeze(2), novel=novel)

    def _checked(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if x.ndim != 3 or x.shape[2] != self.d_in:
            raise ShapeError(
                f"Activations must have the shape [context, token, {self.d_in}]; got "
                f"{list(x.shape)}. A token's code depends on the tokens before it: pass whole "
                "contexts, as ContextStream deals them."
            )
        x = x.to(self.W_dec)
        mask = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask.to(x.device)
        if mask.shape != x.shape[:2]:
            raise ShapeError(
                f"mask must have the shape [context, token] = {list(x.shape[:2])}; got "
                f"{list(mask.shape)}. Pass one entry a token."
            )
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ValueRangeError(
                "Padding must stand at the end of a context; got a token behind it. "
                "Move the tokens to the front: ContextStream does."
            )
        x = x.masked_fill(~mask.unsqueeze(2), 0.0)
        if not bool(x.isfinite().all()):
            bad = int((~x.isfinite()).flatten(1).any(1).nonzero()[0, 0])
            raise NonFiniteError(
                f"Activations must be finite; got NaN or Inf in context {bad}. "
                "Look for an overflow in the model: run it in float32."
            )
        return x, mask

    @torch.no_grad()
    def decode_predicted(self, codes: TemporalCodes) -> Float[Tensor, "context token d"]:
        """What the predicted codes add to the reconstruction; no bias."""
        return codes.predicted.to(self.W_dec) @ self.directions

    @torch.no_grad()
    def decode_novel(self, codes: TemporalCodes) -> Float[Tensor, "context token d"]:
        """What the novel codes add to the reconstruction; no bias."""
        rows = sparse_decode(codes.novel.values, codes.novel.indices, self.directions)
        return rows.unflatten(0, codes.predicted.shape[:2])

    def decode(self, codes: TemporalCodes) -> Float[Tensor, "context token d"]:
        """The reconstruction: both parts and the bias; the bias alone where no token is."""
        return self.decode_predicted(codes) + self.decode_novel(codes) + self.bias

    def forward(
        self,
        x: Float[Tensor, "context token d"],
        mask: Bool[Tensor, "context token"] | None = None,
    ) -> Float[Tensor, "context token d"]:
        """``decode(encode_contexts(x, mask))``."""
        return self.decode(self.encode_contexts(x, mask))

    def save(self, directory: str | Path, *, force: bool = False) -> None:
        """Write a folder, like those of decompositions, that `load_temporal` reads.

        Args:
            directory: made if absent.
            force: whether a dictionary that is there already may be replaced.

        Raises:
            OutputExistsError: if one is there already and `force` is False.
            StorageError: if the folder cannot be written.
        """
        saved = Saved(
            kind=KIND,
            name=self.name,
            reads=self.reads,
            writes=self.writes,
            references=self.references,
            subject_fingerprint=self.subject_fingerprint,
            provenance=self.provenance,
            config={
                "activation": {"kind": self.activation.kind, **self.activation.settings()},
                "layers": len(self.attn_layers),
                "heads": self.heads,
                "bottleneck": self.bottleneck,
                "input_scale": self.input_scale,
            },
            tensors={k: tensor.detach().contiguous() for k, tensor in self.state_dict().items()},
        )
        write_folder(saved, directory, force=force)
