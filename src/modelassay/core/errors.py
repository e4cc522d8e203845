"""Every error that modelassay raises on purpose.

The tree::

    ModelassayError
      + ShapeError (ValueError)              a tensor has the wrong shape
      + ValueRangeError (ValueError)         a value is outside what the method allows
      + NonFiniteError (ValueError)          NaN or Inf where a number must be
      + UnknownNameError (KeyError)          a name typed by a person matches nothing
      + UnsupportedModelError (TypeError)    a model's structure could not be verified
      + ProvenanceError (ValueError)         an artefact was made from something else
      + CorruptFileError (ValueError)        a file is truncated, altered or not ours
      + OutputExistsError (FileExistsError)  an output is there already
      + StorageError (OSError)               the disk is full or may not be written
      + TooFewTokensError (ValueError)       not enough data for the claim asked for
      + WorkerError (RuntimeError)           a parallel process did not finish its job
      + MissingExtraError (ImportError)      an optional dependency is not installed

Messages follow one form: "<what must hold>; got <value>. <What to do>."
Catch them all with ``except ModelassayError``.
"""

import difflib
from collections.abc import Iterable


class ModelassayError(Exception):
    """Base of all errors that modelassay raises on purpose."""


class ShapeError(ModelassayError, ValueError):
    """A tensor has the wrong shape."""


class ValueRangeError(ModelassayError, ValueError):
    """A value is outside what the method allows."""


class NonFiniteError(ModelassayError, ValueError):
    """NaN or Inf where a number must be."""


_LISTED = 20  # names that a message lists in full; of more, only the closest


class UnknownNameError(ModelassayError, KeyError):
    """A name typed by a person matches nothing; near misses are suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        near = near_misses(name, known)
        hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
        listed = ", ".join(known if len(known) <= _LISTED else near_misses(name, known, 8, 0.0))
        listed += ", …" if len(known) > _LISTED else ""
        self.message = f"{kind} must be one of: {listed}; got {name!r}.{hint}"
        super().__init__(self.message)

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would quote the whole sentence.
        return self.message


class UnsupportedModelError(ModelassayError, TypeError):
    """A model's structure could not be resolved or verified."""


class ProvenanceError(ModelassayError, ValueError):
    """An artefact was made from another model, corpus or configuration."""


class CorruptFileError(ModelassayError, ValueError):
    """A file is truncated, altered, or not of the format it claims."""


class OutputExistsError(ModelassayError, FileExistsError):
    """An output exists already and may not be overwritten."""


class StorageError(ModelassayError, OSError):
    """The disk is full, or the place may not be written."""


class TooFewTokensError(ModelassayError, ValueError):
    """There is not enough data for the claim asked for."""


class WorkerError(ModelassayError, RuntimeError):
    """A parallel process did not finish its job."""


class MissingExtraError(ModelassayError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'modelassay[{extra}]'"
        )


def near_misses(
    name: str, known: Iterable[str], count: int = 2, likeness: float = 0.5
) -> list[str]:
    """The known names closest to `name`, best first, if they are alike by at least `likeness`."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=likeness)
