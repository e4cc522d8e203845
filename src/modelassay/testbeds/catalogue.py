"""All testbeds, and those of a user's own file."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from modelassay.core.errors import ValueRangeError
from modelassay.testbeds import (
    boolean,
    circle,
    controls,
    curve,
    knockoff,
    mismatch,
    product,
    relu_pieces,
    superposition,
    tree,
    triples,
)
from modelassay.testbeds.registry import TestbedKind

_ALL: tuple[TestbedKind, ...] = (
    *curve.KINDS,
    *mismatch.KINDS,
    *product.KINDS,
    *relu_pieces.KINDS,
    *superposition.KINDS,
    *knockoff.KINDS,
    *circle.KINDS,
    *tree.KINDS,
    *boolean.KINDS,
    *triples.KINDS,
    *controls.KINDS,
)
TESTBEDS: dict[str, TestbedKind] = {kind.name: kind for kind in _ALL}
"""Name -> testbed, in the order of the league."""


def load_kinds(path: str | Path) -> dict[str, TestbedKind]:
    """The testbeds of a Python file: what its `KINDS` holds, by name. The file is run.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueRangeError: if it defines no `KINDS`, or one whose name is taken.
    """
    path = Path(path).resolve()
    path.open("rb").close()  # the loader's own error would not name the file
    name = f"modelassay_testbeds_of_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueRangeError(
            f"A file of testbeds must be Python; got {path.name!r}. Give its name the end .py."
        )
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module that they are defined in
    spec.loader.exec_module(module)
    kinds = getattr(module, "KINDS", ())
    if not kinds or not all(isinstance(kind, TestbedKind) for kind in kinds):
        raise ValueRangeError(
            f"A file of testbeds must define KINDS, a tuple of TestbedKind; got {kinds!r} in "
            f"{path.name!r}. End it with KINDS = (TestbedKind(...),)."
        )
    found = {kind.name: kind for kind in kinds}
    taken = sorted(set(found) & set(TESTBEDS))
    if taken or len(found) < len(kinds):
        raise ValueRangeError(
            f"Every testbed must have a name of its own; got {taken or [k.name for k in kinds]} "
            f"in {path.name!r}. Rename it."
        )
    return found


def kinds_with(source: str | Path | None) -> dict[str, TestbedKind]:
    """All testbeds, and those of a user's file if one is given."""
    return TESTBEDS if source is None else TESTBEDS | load_kinds(source)
