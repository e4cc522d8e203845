"""Plant features into a widened model: neurons that compute them, and neurons that read them.

Everything is done with weights of a plain Llama, so that all that works on one works here: keys and
values that are kept, null twins, saving. `calibration` measures the model on some text, `triggers`
says what the features detect, `writers` and `readers` make the neurons.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import LlamaForCausalLM

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import ValueRangeError
from modelassay.core.progress import Progress
from modelassay.core.randomness import derived
from modelassay.subjects.site import Site
from modelassay.testbeds.planted.calibration import RESERVED, calibrate
from modelassay.testbeds.planted.neurons import NeuronRows, with_neurons
from modelassay.testbeds.planted.plan import PlannedFeature
from modelassay.testbeds.planted.readers import Readers, make_readers
from modelassay.testbeds.planted.triggers import draw_triggers
from modelassay.testbeds.planted.widening import Widened
from modelassay.testbeds.planted.writers import write_features

LIKENESS = 0.9
"""Correlation of what the features of a pair detect (ours): at a firing rate of 2 % they meet in
some 6 of 10 firings."""
_ON = 0.1  # of a feature's mean value while firing: above it, it fires (ours)


@dataclass(frozen=True, kw_only=True, eq=False)
class Planted:
    """A model with features written into it, and their readers, which are not yet in it."""

    trunk: LlamaForCausalLM
    """The model in which nothing reads the features."""
    layer: int
    plan: tuple[PlannedFeature, ...]
    directions: Float[Tensor, "feature wide"]
    """Orthonormal; where each feature is written."""
    amplitudes: Float[Tensor, " feature"]
    """Mean value while firing, on the calibration text."""
    readers: dict[int, Readers]
    """Block -> the readers in it."""

    @property
    def thresholds(self) -> Float[Tensor, " feature"]:
        """Value above which a feature counts as firing: a tenth of its mean while it does."""
        return _ON * self.amplitudes

    @property
    def site(self) -> Site:
        """Where the features stand."""
        return Site("resid_post", self.layer)

    def values(self, activations: Float[Tensor, "token wide"]) -> Float[Tensor, "token feature"]:
        """The features' values on activations at `site`: exact, since nothing else writes there."""
        return activations @ self.directions.T

    def fires(self, activations: Float[Tensor, "token wide"]) -> Bool[Tensor, "token feature"]:
        """Where each feature's value is above its threshold."""
        return self.values(activations) > self.thresholds

    def with_readers(self, read: Bool[Tensor, " feature"]) -> LlamaForCausalLM:
        """The model in which these features are read; the other readers' weights are all 0.

        Its shapes do not depend on which are read, so that everything up to `site` is the same to
        the bit.
        """
        chosen: dict[int, NeuronRows] = {}
        for block, readers in self.readers.items():
            on, rows = read[readers.owners][:, None], readers.rows
            chosen[block] = NeuronRows(gate=rows.gate * on, up=rows.up * on, down=rows.down * on)
        return with_neurons(self.trunk, chosen)


@torch.no_grad()
def plant(
    model: Widened,
    plan: Sequence[PlannedFeature],
    layer: int,
    contexts: TokenizedCorpus,
    *,
    seed: int,
    progress: Progress | None = None,
) -> Planted:
    """Write features into the residual stream behind a block, and make their readers.

    Args:
        model: from `widened`.
        plan: from `draw_plan`.
        layer: block whose MLP computes the features.
        contexts: calibration text, which sets thresholds, amplitudes and gains.
        seed: of all draws.
        progress: where to report.

    Raises:
        ValueRangeError: if there are more features than private dimensions, or a block is out of
            range.
    """
    _check(model, plan, layer)
    bench = calibrate(
        model, len(plan), layer, {feature.reader for feature in plan}, contexts, progress
    )
    triggers = draw_triggers(
        bench.mid[layer] @ model.original.T,
        bench.histories,
        torch.tensor([feature.rate for feature in plan]),
        # The second of a pair is drawn like the first.
        torch.tensor([p.partner if p.partner < number else -1 for number, p in enumerate(plan)]),
        likeness=LIKENESS,
        generator=derived(seed, "triggers"),
    )
    written = write_features(bench, layer, plan, triggers)
    return Planted(
        trunk=with_neurons(bench.module, {layer: written.rows}),
        layer=layer,
        plan=tuple(plan),
        directions=bench.directions,
        amplitudes=written.amplitudes,
        readers=make_readers(bench, plan, written, seed),
    )


def _check(model: Widened, plan: Sequence[PlannedFeature], layer: int) -> None:
    if len(plan) + RESERVED > len(model.private):
        raise ValueRangeError(
            f"Every feature needs a private dimension, and {RESERVED} are reserved; got "
            f"{len(plan)} features for {len(model.private)} dimensions. Widen the model by "
            f"{len(plan) + RESERVED} or more."
        )
    n_blocks = model.module.config.num_hidden_layers
    readers = sorted({feature.reader for feature in plan})
    if not 0 <= layer < readers[0] <= readers[-1] < n_blocks:
        raise ValueRangeError(
            f"Features are written in one of {n_blocks} blocks and read in later ones; got layer "
            f"{layer} and readers in {readers}. Write them before the last block."
        )
