"""Files that a command may write, and those that it must not overwrite."""

from pathlib import Path

from modelassay.core.errors import OutputExistsError


def refuse_existing(path: Path, *, force: bool) -> None:
    """Make sure that writing `path` overwrites nothing by accident.

    Raises:
        OutputExistsError: if it exists and `force` is False.
    """
    if path.exists() and not force:
        raise OutputExistsError(
            f"The output must not exist yet; got {str(path)!r}. "
            "Pass --force to overwrite it, or choose another place with --out."
        )
