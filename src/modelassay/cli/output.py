"""What a command may write, what it must not overwrite, and what --resume goes on from."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from modelassay.core.errors import OutputExistsError
from modelassay.core.files import prepare_output, translate_os_errors


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


def claim_folder(folder: Path, *, ours: Iterable[str], force: bool, resume: bool) -> None:
    """Make an output folder ready to write.

    With `resume`, what is there stays, to go on from. With `force`, earlier results go first, so
    that no old part stands beside a new one.

    Args:
        ours: glob patterns of what this command writes there.

    Raises:
        OutputExistsError: if there is something already, and neither is asked for; or if there
            are files of others, which `force` does not touch.
        StorageError: if the folder cannot be made or written.
    """
    prepare_output(folder, force=force or resume)
    if resume:
        return
    with translate_os_errors(folder):
        earlier = {path for pattern in ours for path in folder.glob(pattern)}
        others = sorted(path.name for path in folder.iterdir() if path not in earlier)
        if others:
            raise OutputExistsError(
                f"With --force, {str(folder)!r} must hold only what this command writes; got "
                f"{others[0]!r}. Move it, or choose another place with --out."
            )
        for path in earlier:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
