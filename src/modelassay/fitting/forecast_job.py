"""What a run would be, in numbers: the model, the dictionaries, the tokens. Nothing is built."""

from dataclasses import dataclass
from typing import Literal

from modelassay.core.errors import ValueRangeError
from modelassay.fitting.forecast_dictionary import DictionaryShape, must_be_positive
from modelassay.fitting.options import OptimizerName

Precision = Literal["float32", "tf32", "bfloat16"]
"""Of a dense product; weights, gradients and moments are float32 in any case."""
DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Of the model's weights, and of activations in a store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The sizes of a decoder-only transformer."""

    name: str
    d_model: int
    layers: int
    heads: int
    block_parameters: int
    """Entries of all weight matrices of the blocks: each is used once a token."""
    parameters: int
    """Of the whole model, embeddings included: what lies in memory."""
    attention_width: int
    """Heads times their width; that of the residual stream in most models."""

    def __post_init__(self) -> None:
        must_be_positive(
            d_model=self.d_model,
            layers=self.layers,
            heads=self.heads,
            parameters=self.parameters,
            attention_width=self.attention_width,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run: which dictionaries are trained on which activations."""

    model: ModelShape
    blocks_run: int
    """Blocks that run until the site is reached; those after it do not."""
    dictionaries: tuple[DictionaryShape, ...]
    """All trained on one pass over the activations."""
    tokens: int
    """Seen in training, repeats counted."""
    passes: int = 1
    """How often each token is seen."""
    batch_tokens: int = 2048
    """Of a step, over all devices."""
    context_tokens: int = 256
    dtype: str = "float32"
    """Of the model's weights and of stored activations: one of `DTYPE_BYTES`."""
    precision: Precision = "float32"
    """Of the dictionaries' dense products."""
    optimizer: OptimizerName = "adam"
    initial_k: int | None = None
    """Active latents a token in the first step, for the dictionaries whose k can fall."""
    k_share: float = 0.1
    """Share of the run over which they fall."""
    dead_share: float = 0.05
    """Share of latents that AuxK works on, on average (ours; runs differ)."""

    def __post_init__(self) -> None:
        must_be_positive(
            dictionaries=len(self.dictionaries),
            tokens=self.tokens,
            passes=self.passes,
            batch_tokens=self.batch_tokens,
            context_tokens=self.context_tokens,
        )
        if self.tokens < self.batch_tokens:
            raise ValueRangeError(
                f"tokens must make at least one batch of {self.batch_tokens}; got {self.tokens}. "
                "Train on more tokens or lower batch_tokens."
            )
        if not 0 <= self.blocks_run <= self.model.layers:
            raise ValueRangeError(
                f"The site must lie within the model's {self.model.layers} layers; got one after "
                f"{self.blocks_run} blocks. Layers are counted from 0."
            )
        if not 0 <= self.k_share <= 1:
            raise ValueRangeError(
                f"k_share must be between 0 and 1; got {self.k_share}. It is a share of the run."
            )
        for dictionary in self.dictionaries:
            dictionary.check_initial_k(self.initial_k)
        if not 0 <= self.dead_share < 1:
            raise ValueRangeError(
                f"dead_share must be at least 0 and below 1; got {self.dead_share}. Use about 0.05."
            )

    @property
    def d(self) -> int:
        """Width of the activations."""
        return self.model.d_model

    def active(self, dictionary: DictionaryShape) -> float:
        """Active latents a token, on average over the run; 0 for a dense step.

        ``k + (initial_k - k) k_share / 2``, as k falls linearly.
        """
        final = dictionary.active or 0.0
        if self.initial_k is None or not dictionary.varies_k:
            return final
        first = min(self.initial_k / dictionary.parts, dictionary.width)
        return final + (first - final) * self.k_share / 2

    def most_active(self, dictionary: DictionaryShape) -> float:
        """Active latents a token in the step that has the most, which sizes memory."""
        final = dictionary.active or 0.0
        if self.initial_k is None or not dictionary.varies_k:
            return final
        return max(final, min(self.initial_k / dictionary.parts, dictionary.width))

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.tokens // self.batch_tokens

    @property
    def distinct_tokens(self) -> int:
        """Tokens of the corpus, repeats not counted."""
        return -(-self.tokens // self.passes)
