"""The testbed of the documentation as a user's file, and one that cannot be built."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testbeds.md"

BROKEN = """

def broken(seed: int) -> Testbed:
    raise ArithmeticError(f"no construction {seed}")


KINDS += (TestbedKind(name="broken", title="Broken", claim="Cannot be built.", build=broken),)
"""


def example() -> str:
    """The block of the page that is a whole file of testbeds."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    return next(block for block in blocks if "\nKINDS = (" in block)


def write_example(folder: Path, *, more: str = "") -> Path:
    """The file of testbeds."""
    path = folder / "my_testbed.py"
    path.write_text(example() + more, "utf-8")
    return path
