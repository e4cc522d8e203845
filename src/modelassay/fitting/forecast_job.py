"""What a run would be, in numbers: the model, the dictionaries, the tokens. Nothing is built."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch

from modelassay.core.errors import ValueRangeError
from modelassay.core.randomness import derived
from modelassay.decompositions.dictionary import Recipe
from modelassay.decompositions.sparsifiers import BatchTopKActivation
from modelassay.fitting.objectives.auxk import AuxK
from modelassay.fitting.training import training_of

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
        _must_be_positive(
            d_model=self.d_model,
            layers=self.layers,
            heads=self.heads,
            parameters=self.parameters,
            attention_width=self.attention_width,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DictionaryShape:
    """The sizes of a dictionary that reads and writes activations of the same width d."""

    name: str
    width: int
    active: float | None
    """Mean number of active latents a token; None where the training step is dense."""
    sparsifier_parameters: int = 0
    """Trained thresholds and the like, in all."""
    frozen_decoder: bool = False
    unit_decoder: bool = True
    """Whether decoder rows are brought back to length 1 after each step."""
    prefixes: int = 0
    """Nested reconstructions besides the one."""
    revives: bool = True
    """Whether AuxK trains dead latents."""
    compares_tokens: bool = False
    """Whether the largest latents are chosen among all tokens of a batch."""

    def __post_init__(self) -> None:
        _must_be_positive(width=self.width)
        if self.active is not None and not 0 < self.active <= self.width:
            raise ValueRangeError(
                f"Active latents must be above 0 and at most the width, {self.width}; got "
                f"{self.active}. Use 16 to 64 for a residual stream."
            )

    @staticmethod
    def of(recipe: Recipe) -> "DictionaryShape":
        """The sizes of what a recipe makes.

        A recipe with a `k` or a `target_l0` is counted as sparse, every other one as dense. (With
        a `target_l0` the first steps are dense too, until the penalty has acted.)
        """
        settings = asdict(recipe)
        settings = settings.get("inner") or settings  # nested dictionaries of another recipe
        active = settings.get("k", settings.get("target_l0"))
        training = training_of(recipe)
        # Built for activations of one column: as wide as asked for, at 16 bytes a latent or so.
        probe = recipe.build(1, 1, torch.zeros(1), derived(0, "probe"), None)
        return DictionaryShape(
            name=probe.name,
            width=recipe.width,
            active=None if active is None else float(active),
            sparsifier_parameters=sum(p.numel() for p in probe.activation.parameters()),
            frozen_decoder=recipe.frozen_decoder,
            unit_decoder=training.unit_decoder and not recipe.frozen_decoder,
            prefixes=max(0, len(training.prefixes) - 1),
            revives=any(isinstance(term, AuxK) for term in training.objectives),
            compares_tokens=isinstance(probe.activation, BatchTopKActivation),
        )

    def shard(self, shards: int) -> "DictionaryShape":
        """The largest of equal parts of its latents; the active ones are spread evenly."""
        width = -(-self.width // shards)
        active = None if self.active is None else min(self.active / shards, width)
        own = -(-self.sparsifier_parameters // shards)
        return replace(self, width=width, active=active, sparsifier_parameters=own)

    def parameters(self, d: int) -> int:
        """``2 d F + F + d``, and the sparsifier's own."""
        return 2 * d * self.width + self.width + d + self.sparsifier_parameters

    def trained_parameters(self, d: int) -> int:
        """The parameters without a frozen decoder: those with a gradient and two moments."""
        return self.parameters(d) - d * self.width * self.frozen_decoder


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
    dead_share: float = 0.05
    """Share of latents that AuxK works on, on average (ours; runs differ)."""

    def __post_init__(self) -> None:
        _must_be_positive(
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
        if not 0 <= self.dead_share < 1:
            raise ValueRangeError(
                f"dead_share must be at least 0 and below 1; got {self.dead_share}. Use about 0.05."
            )

    @property
    def d(self) -> int:
        """Width of the activations."""
        return self.model.d_model

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.tokens // self.batch_tokens

    @property
    def distinct_tokens(self) -> int:
        """Tokens of the corpus, repeats not counted."""
        return -(-self.tokens // self.passes)


def _must_be_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueRangeError(f"{name} must be at least 1; got {value}. Raise it.")
