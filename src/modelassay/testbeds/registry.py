"""All testbeds, by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelassay.core.errors import UnknownNameError
from modelassay.testbeds.testbed import Testbed


@dataclass(frozen=True, kw_only=True)
class TestbedKind:
    """A testbed before it is built."""

    __test__ = False  # its name makes pytest take it for a test

    name: str
    """"T4a", or "T1.circle" where an example has variants."""
    title: str
    claim: str
    """What the example claims, one or two sentences."""
    build: Callable[[int], Testbed]
    """From a seed."""
    references: tuple[str, ...] = ()
    """Keys of `modelassay.core.references`."""
    slow: bool = False
    """Not part of the default league: needs a GPU or many minutes."""


def find(names: Sequence[str], kinds: dict[str, TestbedKind]) -> list[TestbedKind]:
    """The testbeds of the given names; "T1" stands for all variants of T1, "all" for all.

    Slow ones are meant only by their own name.

    Raises:
        UnknownNameError: if a name matches nothing; near misses are suggested.
    """
    found: dict[str, TestbedKind] = {}
    for name in names:
        wanted = {
            key: kind
            for key, kind in kinds.items()
            if name.lower() == key.lower()
            or (name.lower() in (key.split(".")[0].lower(), "all") and not kind.slow)
        }
        if not wanted:
            raise UnknownNameError("Testbed", name, [*kinds, "all"])
        found |= wanted
    return list(found.values())
