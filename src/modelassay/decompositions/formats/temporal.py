"""Temporal SAEs, which have no form here."""

from pathlib import Path
from typing import NoReturn

from modelassay.core.errors import ValueRangeError


def read_temporal(folder: str | Path) -> NoReturn:
    """Refuse a folder of ``conf.yaml`` and ``latest_ckpt.safetensors``.

    Raises:
        ValueRangeError: always.
    """
    raise ValueRangeError(
        f"{str(folder)!r}: a token's code must depend on that token alone; got a temporal SAE, "
        "which predicts it by attention over earlier tokens. Use its own library."
    )
