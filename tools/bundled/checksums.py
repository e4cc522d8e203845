"""Write the checksums of the bundled model's files, which `modelassay doctor` compares.

python -m tools.bundled.checksums
"""

from pathlib import Path

from modelassay.cli.diagnosis import BUNDLED
from modelassay.core.files import sha256_of_file, write_atomically


def write_checksums(folder: Path) -> None:
    """One line a file below `folder`, in the format of `sha256sum`."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {".safetensors", ".json"}
    )
    lines = [f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_atomically(folder / "SHA256SUMS", "".join(lines))


if __name__ == "__main__":
    write_checksums(BUNDLED)
