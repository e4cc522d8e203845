"""Where a decomposition is measured."""

from modelassay.core.errors import ValueRangeError
from modelassay.decompositions.decomposition import Decomposition
from modelassay.subjects.site import Site


def site_of(decomposition: Decomposition) -> Site:
    """The one site that a decomposition reads and writes.

    Raises:
        ValueRangeError: if it has none, or reads one site and writes another.
    """
    if decomposition.writes is None or decomposition.reads != decomposition.writes:
        raise ValueRangeError(
            f"{decomposition.name} must read and write one site; got reads={decomposition.reads}, "
            f"writes={decomposition.writes}. Give it its site when you build it."
        )
    return decomposition.writes
