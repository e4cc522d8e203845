"""A testbed whose trunk was never made for its task: a control.

Construction: T8.slots, but with the weights of the trunk drawn anew, as a layer draws them before
training. The readers are kept: they look for gates in slots that hold nothing of the kind.

- Model's truth: the gates of T8.slots. No part of the model computes them any more, so nothing in
  the activations deserves their names.
- Activations' truth: the bundles of bits that come together in the data. They reach the site
  through random weights like any other function of the input, and a method that finds them here
  has found data, not model.

Prediction: the model's features are found by no method, in no arm; the verdict is "neither", or
"activations" for a method that the data alone feeds.
"""

from dataclasses import replace

from torch import nn

from modelassay.core.randomness import derived
from modelassay.subjects.null_twins import null_twin
from modelassay.testbeds.arm import arm_subject
from modelassay.testbeds.boolean_slots import draw_circuit, exact_trunk, testbed_on
from modelassay.testbeds.registry import TestbedKind
from modelassay.testbeds.testbed import Testbed


def build(seed: int) -> Testbed:
    """T10.reinitialised."""
    construction = draw_circuit(seed)
    twin = null_twin(
        arm_subject("T8.slots", exact_trunk(construction), nn.Identity()),
        "reinitialised",
        keep_embeddings=False,
        generator=derived(seed, "T10.reinitialised", "weights"),
    )
    trunk = twin.module.get_submodule("trunk")
    # That the circuit is computed exactly is known of T8.slots, and wrong here.
    return replace(testbed_on("T10.reinitialised", seed, construction, trunk), known=tuple)


KIND = TestbedKind(
    name="T10.reinitialised",
    title="Boolean circuit, trunk re-initialised",
    claim="In a network of random weights there are no features of the model to find.",
    build=build,
    references=("heap2025",),
)
