"""T8: Boolean circuits whose gates are packed by slots, in superposition, or by training."""

from modelassay.testbeds import boolean_slots, boolean_trained, boolean_universal
from modelassay.testbeds.registry import TestbedKind

KINDS: tuple[TestbedKind, ...] = (
    boolean_slots.KIND,
    boolean_universal.KIND,
    boolean_trained.KIND,
)
