"""`load_lens`: a fitted lens of either kind from its file."""

from pathlib import Path

from modelassay.observe.lenses.jacobian import JacobianLens
from modelassay.observe.lenses.storage import read_lens
from modelassay.observe.lenses.tuned import TunedLens


def load_lens(path: str | Path) -> TunedLens | JacobianLens:
    """Read a tuned or a Jacobian lens; its header says which it is.

    Raises:
        CorruptFileError: the file is damaged, or holds no lens.
        FileNotFoundError: there is none.
    """
    header, _ = read_lens(path)
    return TunedLens.load(path) if header.kind == "tuned" else JacobianLens.load(path)
