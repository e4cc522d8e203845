"""T10: controls, of which it is known beforehand what a sound method must say."""

from modelassay.testbeds import reinitialised, repeated, scrambled, toy_model
from modelassay.testbeds.registry import TestbedKind

KINDS: tuple[TestbedKind, ...] = (
    toy_model.KIND,
    repeated.KIND,
    reinitialised.KIND,
    scrambled.KIND,
)
